#include "kernels/gated/gated.h"

#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/gated/bodies.h"
#include "kernels/gated/reference.h"

namespace lathe::kernels {
namespace {

void check_gate(const char* operation, const Tensor& gate) {
  expect(operation, "gate", gate).rank(2).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, "gate", gate);
}

void check_like_gate(const char* operation, const char* argument, const Tensor& tensor, const Tensor& gate) {
  expect(operation, argument, tensor).shape(gate.shape()).dtype(gate.dtype()).rows_contiguous().device(gate.device());
}

void forward(const char* operation, GatedKind kind, const Tensor& out, const Tensor& gate, const Tensor& up) {
  check_gate(operation, gate);
  check_like_gate(operation, "up", up, gate);
  check_like_gate(operation, "out", out, gate);
  if (gate.numel() == 0) return;
  if (gate.dtype() == DType::f64) return reference::gated_forward(kind, out, gate, up);
  const GatedForwardArgs args{.kind = kind,
                              .dtype = gate.dtype(),
                              .out = matrix_of(out),
                              .gate = matrix_of(gate),
                              .up = matrix_of(up),
                              .columns = gate.dim(1),
                              .row_begin = 0,
                              .row_end = gate.dim(0)};
  run_rows(
      args, gate.device(), []<auto target>(const GatedForwardArgs& rows) { gated_forward_rows<target>(rows); });
}

void backward(const char* operation, GatedKind kind, const Tensor& grad_gate, const Tensor& grad_up,
              const Tensor& grad_out, const Tensor& gate, const Tensor& up) {
  check_gate(operation, gate);
  check_like_gate(operation, "up", up, gate);
  check_like_gate(operation, "grad_out", grad_out, gate);
  check_like_gate(operation, "grad_gate", grad_gate, gate);
  check_like_gate(operation, "grad_up", grad_up, gate);
  if (gate.numel() == 0) return;
  if (gate.dtype() == DType::f64) {
    return reference::gated_backward(kind, grad_gate, grad_up, grad_out, gate, up);
  }
  const GatedBackwardArgs args{.kind = kind,
                               .dtype = gate.dtype(),
                               .grad_gate = matrix_of(grad_gate),
                               .grad_up = matrix_of(grad_up),
                               .grad_out = matrix_of(grad_out),
                               .gate = matrix_of(gate),
                               .up = matrix_of(up),
                               .columns = gate.dim(1),
                               .row_begin = 0,
                               .row_end = gate.dim(0)};
  run_rows(
      args, gate.device(), []<auto target>(const GatedBackwardArgs& rows) { gated_backward_rows<target>(rows); });
}

}  // namespace

void swiglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up) {
  forward("swiglu_forward", GatedKind::silu, out, gate, up);
}
void geglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up) {
  forward("geglu_forward", GatedKind::gelu_tanh, out, gate, up);
}
void clamped_swiglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up) {
  forward("clamped_swiglu_forward", GatedKind::clamped_silu, out, gate, up);
}
void glu_forward(const Tensor& out, const Tensor& gate, const Tensor& up) {
  forward("glu_forward", GatedKind::logistic, out, gate, up);
}

void swiglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                     const Tensor& up) {
  backward("swiglu_backward", GatedKind::silu, grad_gate, grad_up, grad_out, gate, up);
}
void geglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                    const Tensor& up) {
  backward("geglu_backward", GatedKind::gelu_tanh, grad_gate, grad_up, grad_out, gate, up);
}
void clamped_swiglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                             const Tensor& up) {
  backward("clamped_swiglu_backward", GatedKind::clamped_silu, grad_gate, grad_up, grad_out, gate, up);
}
void glu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                  const Tensor& up) {
  backward("glu_backward", GatedKind::logistic, grad_gate, grad_up, grad_out, gate, up);
}

}  // namespace lathe::kernels
