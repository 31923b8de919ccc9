#include "kernels/softcap/bodies.h"

#include "kernels/simd/row.h"

namespace lathe::kernels {

template <Isa>
void softcap_rows(SoftcapArgs args) {
  const Vec limit = splat(args.cap);
  for (int64_t row = args.row_begin; row < args.row_end; ++row) {
    const float* x = row_of<float>(args.x, row);
    float* out = row_of<float>(args.out, row);
    for_row(args.columns,
            [&](int64_t i, int count) { store_some(out + i, limit * tanh(load_some(x + i, count) / limit), count); });
  }
}
template void softcap_rows<Isa::LATHE_ISA>(SoftcapArgs);

}  // namespace lathe::kernels
