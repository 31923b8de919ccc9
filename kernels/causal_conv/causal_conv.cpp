#include "kernels/causal_conv/causal_conv.h"

#include <string>

#include "core/error.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/causal_conv/bodies.h"
#include "kernels/causal_conv/reference.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"

namespace lathe::kernels {
namespace {

void forward(const CausalConvForwardArgs& args, Device device) {
  run_columns(
      args, device, args.rows * args.taps,
      []<auto target>(const CausalConvForwardArgs& part) { causal_conv_forward_columns<target>(part); });
}

void expect_states(const char* operation, const Tensor& states, const Tensor& x, const Tensor& weight,
                   const PagedBatch& batch) {
  expect(operation, "states", states).rank(3).dtype(x.dtype()).rows_contiguous().device(x.device());
  expect(operation, "states", states).shape({states.dim(0), weight.dim(1) - 1, weight.dim(0)});
  if (!batch.has_states()) throw ShapeError(std::string(operation) + ": batch expects the slots of its sequences");
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int64_t slot = batch.state_slot(s);
    if (batch.bounds()[s] == batch.bounds()[s + 1] || (slot >= 0 && slot < states.dim(0))) continue;
    throw ShapeError(std::string(operation) + ": batch expects slots in [0, " + std::to_string(states.dim(0)) +
                     "), found " + std::to_string(slot) + " of sequence " + std::to_string(s));
  }
}

}  // namespace

void causal_conv_forward(const Tensor& out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& cu_seqlens) {
  const char* operation = "causal_conv_forward";
  expect_conv(operation, "x", x, 1, weight, bias);
  expect_conv_rows(operation, "out", out, weight.dim(0), x);
  expect_cu_seqlens(operation, cu_seqlens, x.dim(0));
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::causal_conv_forward(out, x, weight, bias, cu_seqlens);
  forward({{conv_taps_of(weight, bias), matrix_of(x), cu_seqlens.data<int32_t>(), cu_seqlens.dim(0) - 1},
           matrix_of(out),
           {},
           x.dim(0),
           0,
           x.dim(1)},
          x.device());
}

void causal_conv_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_bias,
                          const Tensor& grad_out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                          const Tensor& cu_seqlens) {
  const char* operation = "causal_conv_backward";
  expect_conv(operation, "x", x, 1, weight, bias);
  expect_conv_rows(operation, "grad_x", grad_x, weight.dim(0), x);
  expect_conv_rows(operation, "grad_out", grad_out, weight.dim(0), x);
  expect_conv_gradient(operation, "grad_weight", grad_weight, weight);
  expect_conv_gradient(operation, "grad_bias", grad_bias, bias);
  expect_cu_seqlens(operation, cu_seqlens, x.dim(0));
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64)
    return reference::causal_conv_backward(grad_x, grad_weight, grad_bias, grad_out, x, weight, bias, cu_seqlens);
  const CausalConvBackwardArgs args{
      {conv_taps_of(weight, bias), matrix_of(x), cu_seqlens.data<int32_t>(), cu_seqlens.dim(0) - 1},
      matrix_of(grad_x),
      grad_weight.defined() ? grad_weight.data<float>() : nullptr,
      grad_bias.defined() ? grad_bias.data<float>() : nullptr,
      matrix_of(grad_out),
      0,
      x.dim(1)};
  run_columns(
      args, x.device(), 2 * x.dim(0) * args.taps,
      []<auto target>(const CausalConvBackwardArgs& part) { causal_conv_backward_columns<target>(part); });
}

void causal_conv_step(const Tensor& out, const Tensor& states, const Tensor& x, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch) {
  const char* operation = "causal_conv_step";
  expect_conv(operation, "x", x, 1, weight, bias);
  expect(operation, "x", x).shape({batch.tokens(), weight.dim(0)}).device(batch.pages().device);
  expect_conv_rows(operation, "out", out, weight.dim(0), x);
  expect_states(operation, states, x, weight, batch);
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::causal_conv_step(out, states, x, weight, bias, batch);
  const PagedBatch::OnDevice there = batch.on_device();
  forward({{conv_taps_of(weight, bias), matrix_of(x), there.bounds, batch.sequences()},
           matrix_of(out),
           {states.raw(), states.stride(0), states.stride(1), there.state_slots, there.contexts},
           x.dim(0),
           0,
           x.dim(1)},
          x.device());
}

}  // namespace lathe::kernels
