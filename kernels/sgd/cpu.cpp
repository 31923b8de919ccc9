#include "kernels/sgd/bodies.h"
#include "kernels/simd/row.h"

namespace lathe::kernels {

template <Isa>
void sgd_range(SgdArgs args) {
  using namespace LATHE_ISA;
  float* weight = args.weight + args.begin;
  const float* grad = args.grad + args.begin;
  for_row(args.end - args.begin, [&](int64_t i, int count) {
    const Vec decayed = splat(args.constants.keep_weight) * load_some(weight + i, count);
    store_some(weight + i, fma(splat(-args.constants.step_size), load_some(grad + i, count), decayed), count);
  });
}
template void sgd_range<Isa::LATHE_ISA>(SgdArgs);

}  // namespace lathe::kernels
