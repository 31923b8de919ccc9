#include "kernels/rms_norm/rms_norm.h"

#include <algorithm>

#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/rms_norm/bodies.h"
#include "kernels/rms_norm/reference.h"

namespace lathe::kernels {
namespace {

constexpr auto floating = {DType::f32, DType::bf16, DType::f16, DType::f64};

void check_matrix(const char* operation, const char* argument, const Tensor& tensor, const Tensor& x) {
  expect(operation, argument, tensor).shape(x.shape()).dtype(x.dtype()).rows_contiguous().device(x.device());
}

void check_norm(const char* operation, const Tensor& x, const Tensor& weight, const Tensor& rstd) {
  expect(operation, "x", x).rank(2).dtype(floating).rows_contiguous();
  expect_body(operation, "x", x);
  expect(operation, "weight", weight).shape({x.dim(1)}).dtype(x.dtype()).contiguous().device(x.device());
  if (rstd.defined()) {
    expect(operation, "rstd", rstd)
        .shape({x.dim(0)})
        .dtype(x.dtype() == DType::f64 ? DType::f64 : DType::f32)
        .contiguous()
        .device(x.device());
  }
}

void forward(const Tensor& out, const Tensor& sum, const Tensor& rstd, const Tensor& x, const Tensor& residual,
             const Tensor& weight, float eps) {
  const RmsNormForwardArgs args{.dtype = x.dtype(),
                                .out = matrix_of(out),
                                .sum = matrix_of(sum),
                                .rstd = rstd.defined() ? rstd.data<float>() : nullptr,
                                .x = matrix_of(x),
                                .residual = matrix_of(residual),
                                .weight = weight.raw(),
                                .eps = eps,
                                .columns = x.dim(1),
                                .row_begin = 0,
                                .row_end = x.dim(0)};
  run_rows(
      args, x.device(), []<auto target>(const RmsNormForwardArgs& rows) { rms_norm_forward_rows<target>(rows); });
}

void weight_grad(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x, const Tensor& rstd,
                 const Tensor& cu_seqlens) {
  const RmsNormWeightGradArgs args{.dtype = x.dtype(),
                                   .grad_weight = grad_weight.data<float>(),
                                   .grad_out = matrix_of(grad_out),
                                   .x = matrix_of(x),
                                   .rstd = rstd.data<float>(),
                                   .cu_seqlens = cu_seqlens.data<int32_t>(),
                                   .sequences = cu_seqlens.dim(0) - 1,
                                   .column_begin = 0,
                                   .column_end = x.dim(1)};
  if (x.device().kind != DeviceKind::cpu)
    return with_device(x.device(), [&]<DeviceKind kind>() { rms_norm_weight_grad_columns<kind>(args); });
  // Whole cache lines of the four vectors.
  const int64_t grain = std::max<int64_t>(64, row_grain(x.dim(0)) / 64 * 64);
  parallel_for(x.dim(1), grain, [&](int64_t begin, int64_t end) {
    RmsNormWeightGradArgs range = args;
    range.column_begin = begin;
    range.column_end = end;
    with_isa([&]<Isa isa>() { rms_norm_weight_grad_columns<isa>(range); });
  });
}

void input_grad(const Tensor& grad_x, const Tensor& grad_out, const Tensor& grad_sum, const Tensor& x,
                const Tensor& weight, const Tensor& rstd) {
  const RmsNormBackwardArgs args{.dtype = x.dtype(),
                                 .grad_x = matrix_of(grad_x),
                                 .grad_out = matrix_of(grad_out),
                                 .grad_sum = matrix_of(grad_sum),
                                 .x = matrix_of(x),
                                 .weight = weight.raw(),
                                 .rstd = rstd.data<float>(),
                                 .columns = x.dim(1),
                                 .row_begin = 0,
                                 .row_end = x.dim(0)};
  run_rows(
      args, x.device(), []<auto target>(const RmsNormBackwardArgs& rows) { rms_norm_backward_rows<target>(rows); });
}

}  // namespace

void rms_norm_forward(const Tensor& out, const Tensor& rstd, const Tensor& x, const Tensor& weight, float eps) {
  check_norm("rms_norm_forward", x, weight, rstd);
  check_matrix("rms_norm_forward", "out", out, x);
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::rms_norm_forward(out, rstd, x, weight, eps);
  forward(out, {}, rstd, x, {}, weight, eps);
}

void rms_norm_residual_forward(const Tensor& out, const Tensor& sum, const Tensor& rstd, const Tensor& x,
                               const Tensor& residual, const Tensor& weight, float eps) {
  const char* operation = "rms_norm_residual_forward";
  check_norm(operation, x, weight, rstd);
  check_matrix(operation, "residual", residual, x);
  check_matrix(operation, "sum", sum, x);
  check_matrix(operation, "out", out, x);
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::rms_norm_residual_forward(out, sum, rstd, x, residual, weight, eps);
  forward(out, sum, rstd, x, residual, weight, eps);
}

void rms_norm_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_out, const Tensor& grad_sum,
                       const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& cu_seqlens) {
  const char* operation = "rms_norm_backward";
  check_norm(operation, x, weight, rstd);
  if (!rstd.defined()) expect(operation, "rstd", rstd);
  check_matrix(operation, "grad_x", grad_x, x);
  check_matrix(operation, "grad_out", grad_out, x);
  if (grad_sum.defined()) check_matrix(operation, "grad_sum", grad_sum, x);
  if (grad_weight.defined()) {
    expect(operation, "grad_weight", grad_weight).shape({x.dim(1)}).dtype(rstd.dtype()).contiguous().device(x.device());
    expect_cu_seqlens(operation, cu_seqlens, x.dim(0));
  }
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) {
    return reference::rms_norm_backward(grad_x, grad_weight, grad_out, grad_sum, x, weight, rstd, cu_seqlens);
  }
  if (grad_weight.defined()) weight_grad(grad_weight, grad_out, x, rstd, cu_seqlens);
  input_grad(grad_x, grad_out, grad_sum, x, weight, rstd);
}

}  // namespace lathe::kernels
