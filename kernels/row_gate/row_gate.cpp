#include "kernels/row_gate/row_gate.h"

#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/row_gate/bodies.h"
#include "kernels/row_gate/reference.h"

namespace lathe::kernels {
namespace {

void check_like(const char* operation, const char* argument, const Tensor& tensor, const Shape& shape,
                const Tensor& x) {
  expect(operation, argument, tensor).shape(shape).dtype(x.dtype()).rows_contiguous().device(x.device());
}

void check(const char* operation, const Tensor& gate, const Tensor& x) {
  expect(operation, "x", x).rank(2).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, "x", x);
  check_like(operation, "gate", gate, {x.dim(0), 1}, x);
}

}  // namespace

void row_gate_forward(const Tensor& out, const Tensor& gate, const Tensor& x, const Tensor& residual) {
  const char* operation = "row_gate_forward";
  check(operation, gate, x);
  check_like(operation, "residual", residual, x.shape(), x);
  check_like(operation, "out", out, x.shape(), x);
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::row_gate_forward(out, gate, x, residual);
  const RowGateForwardArgs args{.dtype = x.dtype(),
                                .out = matrix_of(out),
                                .gate = matrix_of(gate),
                                .x = matrix_of(x),
                                .residual = matrix_of(residual),
                                .columns = x.dim(1),
                                .row_begin = 0,
                                .row_end = x.dim(0)};
  run_rows(
      args, x.device(), []<auto target>(const RowGateForwardArgs& rows) { row_gate_forward_rows<target>(rows); });
}

void row_gate_backward(const Tensor& grad_gate, const Tensor& grad_x, const Tensor& grad_out, const Tensor& gate,
                       const Tensor& x) {
  const char* operation = "row_gate_backward";
  check(operation, gate, x);
  check_like(operation, "grad_out", grad_out, x.shape(), x);
  check_like(operation, "grad_x", grad_x, x.shape(), x);
  check_like(operation, "grad_gate", grad_gate, gate.shape(), x);
  if (x.dim(0) == 0) return;
  if (x.dtype() == DType::f64) return reference::row_gate_backward(grad_gate, grad_x, grad_out, gate, x);
  const RowGateBackwardArgs args{.dtype = x.dtype(),
                                 .grad_gate = matrix_of(grad_gate),
                                 .grad_x = matrix_of(grad_x),
                                 .grad_out = matrix_of(grad_out),
                                 .gate = matrix_of(gate),
                                 .x = matrix_of(x),
                                 .columns = x.dim(1),
                                 .row_begin = 0,
                                 .row_end = x.dim(0)};
  run_rows(
      args, x.device(), []<auto target>(const RowGateBackwardArgs& rows) { row_gate_backward_rows<target>(rows); });
}

}  // namespace lathe::kernels
