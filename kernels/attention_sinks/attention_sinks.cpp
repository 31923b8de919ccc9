#include "kernels/attention_sinks/attention_sinks.h"

#include <string>

#include "core/error.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/attention/checks.h"
#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention_sinks/bodies.h"
#include "kernels/attention_sinks/reference.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {
namespace {

DType wide(const Tensor& x) { return x.dtype() == DType::f64 ? DType::f64 : DType::f32; }

void check_heads(std::string_view operation, std::string_view argument, const Tensor& x, const Tensor& sinks) {
  expect(operation, argument, x).rank(3).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, argument, x);
  expect(operation, "sinks", sinks).shape({x.dim(1)}).dtype(x.dtype()).contiguous().device(x.device());
  if (x.device().kind != DeviceKind::cpu && x.dim(2) > attention_cuda_head_dim_most)
    throw ShapeError(std::string(operation) + ": " + std::string(argument) + " expects a head size of at most " +
                     std::to_string(attention_cuda_head_dim_most) + " on " + to_string(x.device()) + ", found " +
                     describe(x));
}

void check_lse(std::string_view operation, std::string_view argument, const Tensor& lse, const Tensor& x) {
  expect(operation, argument, lse).shape({x.dim(1), x.dim(0)}).dtype(wide(x)).rows_contiguous().device(x.device());
}

}  // namespace

void attention_sinks(const Tensor& out, const Tensor& lse_out, const Tensor& x, const Tensor& lse,
                     const Tensor& sinks) {
  constexpr std::string_view operation = "attention_sinks";
  check_heads(operation, "x", x, sinks);
  expect_heads(operation, "out", out, x.shape(), x.dtype(), x.device());
  check_lse(operation, "lse", lse, x);
  if (lse_out.defined()) check_lse(operation, "lse_out", lse_out, x);
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::attention_sinks(out, lse_out, x, lse, sinks);
  const AttentionSinksArgs args{.dtype = x.dtype(),
                                .out = head_rows_of(out),
                                .x = head_rows_of(x),
                                .lse_out = lse_out.defined() ? lse_out.data<float>() : nullptr,
                                .lse_out_head = lse_out.defined() ? lse_out.stride(0) : 0,
                                .lse = lse.data<float>(),
                                .lse_head = lse.stride(0),
                                .sinks = sinks.raw(),
                                .heads = x.dim(1),
                                .head_dim = x.dim(2),
                                .columns = x.dim(1) * x.dim(2),
                                .row_begin = 0,
                                .row_end = x.dim(0)};
  run_rows(
      args, x.device(), []<auto target>(const AttentionSinksArgs& rows) { attention_sinks_rows<target>(rows); });
}

void attention_sinks_backward(const Tensor& dots, const Tensor& shares, const Tensor& grad_out, const Tensor& out,
                              const Tensor& lse_out, const Tensor& sinks) {
  constexpr std::string_view operation = "attention_sinks_backward";
  check_heads(operation, "out", out, sinks);
  expect_heads(operation, "grad_out", grad_out, out.shape(), out.dtype(), out.device());
  check_lse(operation, "lse_out", lse_out, out);
  for (const auto& [name, tensor] : {std::pair{"dots", dots}, {"shares", shares}})
    expect(operation, name, tensor).shape({out.dim(0), out.dim(1)}).dtype(wide(out)).contiguous().device(out.device());
  if (out.numel() == 0) return;
  if (out.dtype() == DType::f64)
    return reference::attention_sinks_backward(dots, shares, grad_out, out, lse_out, sinks);
  const AttentionSinksBackwardArgs args{.dtype = out.dtype(),
                                        .dots = dots.data<float>(),
                                        .shares = shares.data<float>(),
                                        .grad_out = head_rows_of(grad_out),
                                        .out = head_rows_of(out),
                                        .lse = lse_out.data<float>(),
                                        .lse_head = lse_out.stride(0),
                                        .sinks = sinks.raw(),
                                        .heads = out.dim(1),
                                        .head_dim = out.dim(2),
                                        .columns = out.dim(1) * out.dim(2),
                                        .row_begin = 0,
                                        .row_end = out.dim(0)};
  run_rows(
      args, out.device(),
      []<auto target>(const AttentionSinksBackwardArgs& rows) { attention_sinks_backward_rows<target>(rows); });
}

}  // namespace lathe::kernels
