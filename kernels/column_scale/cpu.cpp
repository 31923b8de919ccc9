#include "kernels/column_scale/bodies.h"
#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class T>
void scale_row(const ColumnScaleArgs& args, int64_t row) {
  const T *x = row_of<T>(args.x, row), *bias = static_cast<const T*>(args.bias);
  const T* residual = args.residual.data != nullptr ? row_of<T>(args.residual, row) : nullptr;
  T* out = row_of<T>(args.out, row);
  for_row(args.columns, [&](int64_t i, int count) {
    Vec value = load_some(args.scale + i, count) * load_some(x + i, count);
    if (bias != nullptr) value = value + load_some(bias + i, count);
    if (residual != nullptr) value = value + load_some(residual + i, count);
    store_some(out + i, value, count);
  });
}

template <class T>
void gradient(const ColumnScaleGradientArgs& args) {
  for_row(args.column_end - args.column_begin, [&](int64_t i, int count) {
    const int64_t column = args.column_begin + i;
    Vec total = load_some(args.grad_scale + column, count);
    const Vec factor = load_some(args.factor + column, count);
    for (int64_t s = 0; s < args.sequences; ++s) {
      Vec sum = zero();
      for (int64_t t = args.cu_seqlens[s]; t < args.cu_seqlens[s + 1]; ++t)
        sum = fma(load_some(row_of<T>(args.grad_out, t) + column, count),
                  load_some(row_of<T>(args.x, t) + column, count), sum);
      total = fma(factor, sum, total);
    }
    store_some(args.grad_scale + column, total, count);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void column_scale_rows(ColumnScaleArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) scale_row<T>(args, row);
  });
}
template void column_scale_rows<Isa::LATHE_ISA>(ColumnScaleArgs);

template <Isa>
void column_scale_gradient_columns(ColumnScaleGradientArgs args) {
  with_element(args.dtype, [&]<class T>(T) { gradient<T>(args); });
}
template void column_scale_gradient_columns<Isa::LATHE_ISA>(ColumnScaleGradientArgs);

}  // namespace lathe::kernels
