#include "kernels/swiglu/cpu.h"

#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class T>
void forward_row(const SwigluForwardArgs& args, int64_t row) {
  const T* gate = static_cast<const T*>(args.gate) + row * args.gate_stride;
  const T* up = static_cast<const T*>(args.up) + row * args.up_stride;
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  for_row(args.columns, [&](int64_t i, int count) {
    const Vec x = load_some(gate + i, count);
    const Vec silu = round_to<T>(x / (splat(1.0f) + exp(-x)));
    store_some(out + i, silu * load_some(up + i, count), count);
  });
}

template <class T>
void backward_row(const SwigluBackwardArgs& args, int64_t row) {
  const T* grad_out = static_cast<const T*>(args.grad_out) + row * args.grad_out_stride;
  const T* gate = static_cast<const T*>(args.gate) + row * args.gate_stride;
  const T* up = static_cast<const T*>(args.up) + row * args.up_stride;
  T* grad_gate = static_cast<T*>(args.grad_gate) + row * args.grad_gate_stride;
  T* grad_up = static_cast<T*>(args.grad_up) + row * args.grad_up_stride;
  const Vec one = splat(1.0f);
  for_row(args.columns, [&](int64_t i, int count) {
    const Vec x = load_some(gate + i, count), u = load_some(up + i, count), g = load_some(grad_out + i, count);
    const Vec e = exp(-x), s = one / (one + e);
    // 1 − s, which cancels where s is near 1: there it is e · s.
    const Vec rest = select((VecI)(x > zero()), e * s, one - s);
    const Vec slope = s * fma(x, rest, one);
    store_some(grad_gate + i, g * u * slope, count);
    store_some(grad_up + i, g * (x * s), count);
  });
}

}  // namespace

void swiglu_forward_rows(SwigluForwardArgs args) {
  for (int64_t row = args.row_begin; row < args.row_end; ++row) {
    args.dtype == DType::f32 ? forward_row<float>(args, row) : forward_row<bf16>(args, row);
  }
}

void swiglu_backward_rows(SwigluBackwardArgs args) {
  for (int64_t row = args.row_begin; row < args.row_end; ++row) {
    args.dtype == DType::f32 ? backward_row<float>(args, row) : backward_row<bf16>(args, row);
  }
}

}  // namespace lathe::kernels::LATHE_ISA
