#include "kernels/column_scale/column_scale.h"

#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/column_scale/bodies.h"
#include "kernels/column_scale/reference.h"

namespace lathe::kernels {
namespace {

void check_matrix(const char* operation, const char* argument, const Tensor& tensor, const Tensor& x) {
  expect(operation, argument, tensor).shape(x.shape()).dtype(x.dtype()).rows_contiguous().device(x.device());
}

void check_vector(const char* operation, const char* argument, const Tensor& tensor, const Tensor& x, DType dtype) {
  expect(operation, argument, tensor).shape({x.dim(1)}).dtype(dtype).contiguous().device(x.device());
}

void check_x(const char* operation, const Tensor& x) {
  expect(operation, "x", x).rank(2).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, "x", x);
}

DType wide(const Tensor& x) { return x.dtype() == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace

void column_scale(const Tensor& out, const Tensor& x, const Tensor& scale, const Tensor& bias, const Tensor& residual) {
  const char* operation = "column_scale";
  check_x(operation, x);
  check_matrix(operation, "out", out, x);
  check_vector(operation, "scale", scale, x, wide(x));
  if (bias.defined()) check_vector(operation, "bias", bias, x, x.dtype());
  if (residual.defined()) check_matrix(operation, "residual", residual, x);
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::column_scale(out, x, scale, bias, residual);
  const ColumnScaleArgs args{.dtype = x.dtype(),
                             .out = matrix_of(out),
                             .x = matrix_of(x),
                             .residual = matrix_of(residual),
                             .scale = scale.data<float>(),
                             .bias = bias.defined() ? bias.raw() : nullptr,
                             .columns = x.dim(1),
                             .row_begin = 0,
                             .row_end = x.dim(0)};
  run_rows(
      args, x.device(), []<auto target>(const ColumnScaleArgs& rows) { column_scale_rows<target>(rows); });
}

void column_scale_gradient(const Tensor& grad_scale, const Tensor& grad_out, const Tensor& x, const Tensor& factor,
                           const Tensor& cu_seqlens) {
  const char* operation = "column_scale_gradient";
  check_x(operation, x);
  check_matrix(operation, "grad_out", grad_out, x);
  check_vector(operation, "grad_scale", grad_scale, x, wide(x));
  check_vector(operation, "factor", factor, x, wide(x));
  expect_cu_seqlens(operation, cu_seqlens, x.dim(0));
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::column_scale_gradient(grad_scale, grad_out, x, factor, cu_seqlens);
  const ColumnScaleGradientArgs args{.dtype = x.dtype(),
                                     .grad_scale = grad_scale.data<float>(),
                                     .grad_out = matrix_of(grad_out),
                                     .x = matrix_of(x),
                                     .factor = factor.data<float>(),
                                     .cu_seqlens = cu_seqlens.data<int32_t>(),
                                     .sequences = cu_seqlens.dim(0) - 1,
                                     .column_begin = 0,
                                     .column_end = x.dim(1)};
  run_columns(
      args, x.device(), x.dim(0),
      []<auto target>(const ColumnScaleGradientArgs& part) { column_scale_gradient_columns<target>(part); });
}

}  // namespace lathe::kernels
