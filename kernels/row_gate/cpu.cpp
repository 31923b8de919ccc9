#include "kernels/row_gate/bodies.h"

#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class T>
LATHE_INLINE Vec gate_of(const ConstMatrix& gate, int64_t row) {
  return splat(static_cast<float>(*row_of<T>(gate, row)));
}

template <class T>
void forward_row(const RowGateForwardArgs& args, int64_t row) {
  const Vec one = splat(1.0f), s = one / (one + exp(-gate_of<T>(args.gate, row)));
  const T *x = row_of<T>(args.x, row), *residual = row_of<T>(args.residual, row);
  T* out = row_of<T>(args.out, row);
  for_row(args.columns, [&](int64_t i, int count) {
    store_some(out + i, fma(s, load_some(x + i, count), load_some(residual + i, count)), count);
  });
}

template <class T>
void backward_row(const RowGateBackwardArgs& args, int64_t row) {
  const Vec one = splat(1.0f), gate = gate_of<T>(args.gate, row), e = exp(-gate), s = one / (one + e);
  const Vec rest = select((VecI)(gate > zero()), e * s, one - s);  // 1 − s, which cancels where s is near 1
  const T *x = row_of<T>(args.x, row), *grad_out = row_of<T>(args.grad_out, row);
  T* grad_x = row_of<T>(args.grad_x, row);
  const float sum = row_sum(args.columns, [&](Vec part, int64_t i, int count) {
    const Vec g = load_some(grad_out + i, count);
    part = fma(g, load_some(x + i, count), part);
    store_some(grad_x + i, s * g, count);
    return part;
  });
  store_some(row_of<T>(args.grad_gate, row), s * rest * splat(sum), 1);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void row_gate_forward_rows(RowGateForwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) forward_row<T>(args, row);
  });
}
template void row_gate_forward_rows<Isa::LATHE_ISA>(RowGateForwardArgs);

template <Isa>
void row_gate_backward_rows(RowGateBackwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) backward_row<T>(args, row);
  });
}
template void row_gate_backward_rows<Isa::LATHE_ISA>(RowGateBackwardArgs);

}  // namespace lathe::kernels
