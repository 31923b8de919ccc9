#include "kernels/lion/bodies.h"
#include "kernels/simd/row.h"

namespace lathe::kernels {

template <Isa>
void lion_range(LionArgs args) {
  using namespace LATHE_ISA;
  float *weight = args.weight + args.begin, *m = args.m + args.begin;
  const float* grad = args.grad + args.begin;
  const LionConstants c = args.constants;
  for_row(args.end - args.begin, [&](int64_t i, int count) {
    const Vec g = splat(c.grad_scale) * load_some(grad + i, count), mean = load_some(m + i, count);
    const Vec direction = fma(splat(c.beta1), mean, splat(c.one_less_beta1) * g);
    const Vec step =
        select(direction > zero(), splat(c.learning_rate), select(direction < zero(), splat(-c.learning_rate), zero()));
    store_some(weight + i, splat(c.keep_weight) * load_some(weight + i, count) - step, count);
    store_some(m + i, fma(splat(c.beta2), mean, splat(c.one_less_beta2) * g), count);
  });
}
template void lion_range<Isa::LATHE_ISA>(LionArgs);

}  // namespace lathe::kernels
