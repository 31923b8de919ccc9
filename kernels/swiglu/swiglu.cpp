#include "kernels/swiglu/swiglu.h"

#include <algorithm>

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/swiglu/cpu.h"
#include "kernels/swiglu/reference.h"

namespace lathe::kernels {
namespace {

// About 16k elements: some microseconds, so that a few rows stay on the caller.
int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns)); }

void check_like_gate(const char* operation, const char* argument, const Tensor& tensor, const Tensor& gate) {
  expect(operation, argument, tensor).shape(gate.shape()).dtype(gate.dtype()).rows_contiguous().device(gate.device());
}

}  // namespace

void swiglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up) {
  const char* operation = "swiglu_forward";
  expect(operation, "gate", gate).rank(2).dtype({DType::f32, DType::bf16, DType::f64}).rows_contiguous();
  check_like_gate(operation, "up", up, gate);
  check_like_gate(operation, "out", out, gate);
  expect_cpu(operation, gate);
  if (gate.numel() == 0) return;
  if (gate.dtype() == DType::f64) return reference::swiglu_forward(out, gate, up);
  SwigluForwardArgs args{};
  args.dtype = gate.dtype();
  args.out = out.raw();
  args.gate = gate.raw();
  args.up = up.raw();
  args.out_stride = out.stride(0);
  args.gate_stride = gate.stride(0);
  args.up_stride = up.stride(0);
  args.columns = gate.dim(1);
  parallel_for(gate.dim(0), row_grain(gate.dim(1)), [&](int64_t begin, int64_t end) {
    SwigluForwardArgs range = args;
    range.row_begin = begin;
    range.row_end = end;
    cpu::swiglu_forward_rows(range);
  });
}

void swiglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                     const Tensor& up) {
  const char* operation = "swiglu_backward";
  expect(operation, "gate", gate).rank(2).dtype({DType::f32, DType::bf16, DType::f64}).rows_contiguous();
  check_like_gate(operation, "up", up, gate);
  check_like_gate(operation, "grad_out", grad_out, gate);
  check_like_gate(operation, "grad_gate", grad_gate, gate);
  check_like_gate(operation, "grad_up", grad_up, gate);
  expect_cpu(operation, gate);
  if (gate.numel() == 0) return;
  if (gate.dtype() == DType::f64) return reference::swiglu_backward(grad_gate, grad_up, grad_out, gate, up);
  SwigluBackwardArgs args{};
  args.dtype = gate.dtype();
  args.grad_gate = grad_gate.raw();
  args.grad_up = grad_up.raw();
  args.grad_out = grad_out.raw();
  args.gate = gate.raw();
  args.up = up.raw();
  args.grad_gate_stride = grad_gate.stride(0);
  args.grad_up_stride = grad_up.stride(0);
  args.grad_out_stride = grad_out.stride(0);
  args.gate_stride = gate.stride(0);
  args.up_stride = up.stride(0);
  args.columns = gate.dim(1);
  parallel_for(gate.dim(0), row_grain(gate.dim(1)), [&](int64_t begin, int64_t end) {
    SwigluBackwardArgs range = args;
    range.row_begin = begin;
    range.row_end = end;
    cpu::swiglu_backward_rows(range);
  });
}

}  // namespace lathe::kernels
