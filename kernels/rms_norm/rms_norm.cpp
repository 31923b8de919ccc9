#include "kernels/rms_norm/rms_norm.h"

#include <algorithm>

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/rms_norm/cpu.h"
#include "kernels/rms_norm/device.h"
#include "kernels/rms_norm/reference.h"

namespace lathe::kernels {
namespace {

constexpr auto floating = {DType::f32, DType::bf16, DType::f64};

// About 16k elements: some microseconds, so that a few rows stay on the caller.
int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns)); }

void check_matrix(const char* operation, const char* argument, const Tensor& tensor, const Tensor& x) {
  expect(operation, argument, tensor).shape(x.shape()).dtype(x.dtype()).rows_contiguous().device(x.device());
}

void check_norm(const char* operation, const Tensor& x, const Tensor& weight, const Tensor& rstd) {
  expect(operation, "x", x).rank(2).dtype(floating).rows_contiguous();
  expect(operation, "weight", weight).shape({x.dim(1)}).dtype(x.dtype()).contiguous().device(x.device());
  if (rstd.defined()) {
    expect(operation, "rstd", rstd)
        .shape({x.dim(0)})
        .dtype(x.dtype() == DType::f64 ? DType::f64 : DType::f32)
        .contiguous()
        .device(x.device());
  }
}

void forward_on_cpu(const Tensor& out, const Tensor& sum, const Tensor& rstd, const Tensor& x, const Tensor& residual,
                    const Tensor& weight, float eps) {
  RmsNormForwardArgs args{};
  args.dtype = x.dtype();
  args.x = x.raw();
  args.x_stride = x.stride(0);
  if (residual.defined()) {
    args.residual = residual.raw();
    args.residual_stride = residual.stride(0);
    args.sum = sum.raw();
    args.sum_stride = sum.stride(0);
  }
  args.out = out.raw();
  args.out_stride = out.stride(0);
  args.rstd = rstd.defined() ? rstd.data<float>() : nullptr;
  args.weight = weight.raw();
  args.columns = x.dim(1);
  args.eps = eps;
  parallel_for(x.dim(0), row_grain(x.dim(1)), [&](int64_t begin, int64_t end) {
    RmsNormForwardArgs range = args;
    range.row_begin = begin;
    range.row_end = end;
    cpu::rms_norm_forward_rows(range);
  });
}

void weight_grad_on_cpu(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x, const Tensor& rstd,
                        const Tensor& cu_seqlens) {
  RmsNormWeightGradArgs args{};
  args.dtype = x.dtype();
  args.grad_weight = grad_weight.data<float>();
  args.grad_out = grad_out.raw();
  args.grad_out_stride = grad_out.stride(0);
  args.x = x.raw();
  args.x_stride = x.stride(0);
  args.rstd = rstd.data<float>();
  args.cu_seqlens = cu_seqlens.data<int32_t>();
  args.sequences = cu_seqlens.dim(0) - 1;
  const int64_t tokens = std::max<int64_t>(1, x.dim(0));
  const int64_t grain = std::max<int64_t>(64, 16384 / tokens / 64 * 64);  // whole cache lines of the four vectors
  parallel_for(x.dim(1), grain, [&](int64_t begin, int64_t end) {
    RmsNormWeightGradArgs range = args;
    range.column_begin = begin;
    range.column_end = end;
    cpu::rms_norm_weight_grad_columns(range);
  });
}

void input_grad_on_cpu(const Tensor& grad_x, const Tensor& grad_out, const Tensor& grad_sum, const Tensor& x,
                       const Tensor& weight, const Tensor& rstd) {
  RmsNormBackwardArgs args{};
  args.dtype = x.dtype();
  args.grad_x = grad_x.raw();
  args.grad_x_stride = grad_x.stride(0);
  args.grad_out = grad_out.raw();
  args.grad_out_stride = grad_out.stride(0);
  if (grad_sum.defined()) {
    args.grad_sum = grad_sum.raw();
    args.grad_sum_stride = grad_sum.stride(0);
  }
  args.x = x.raw();
  args.x_stride = x.stride(0);
  args.weight = weight.raw();
  args.rstd = rstd.data<float>();
  args.columns = x.dim(1);
  parallel_for(x.dim(0), row_grain(x.dim(1)), [&](int64_t begin, int64_t end) {
    RmsNormBackwardArgs range = args;
    range.row_begin = begin;
    range.row_end = end;
    cpu::rms_norm_backward_rows(range);
  });
}

}  // namespace

void rms_norm_forward(const Tensor& out, const Tensor& rstd, const Tensor& x, const Tensor& weight, float eps) {
  check_norm("rms_norm_forward", x, weight, rstd);
  check_matrix("rms_norm_forward", "out", out, x);
  if (x.numel() == 0) return;
  if (x.device().kind != DeviceKind::cpu) return device::rms_norm_forward(out, {}, rstd, x, {}, weight, eps);
  if (x.dtype() == DType::f64) return reference::rms_norm_forward(out, rstd, x, weight, eps);
  forward_on_cpu(out, {}, rstd, x, {}, weight, eps);
}

void rms_norm_residual_forward(const Tensor& out, const Tensor& sum, const Tensor& rstd, const Tensor& x,
                               const Tensor& residual, const Tensor& weight, float eps) {
  const char* operation = "rms_norm_residual_forward";
  check_norm(operation, x, weight, rstd);
  check_matrix(operation, "residual", residual, x);
  check_matrix(operation, "sum", sum, x);
  check_matrix(operation, "out", out, x);
  if (x.numel() == 0) return;
  if (x.device().kind != DeviceKind::cpu) return device::rms_norm_forward(out, sum, rstd, x, residual, weight, eps);
  if (x.dtype() == DType::f64) return reference::rms_norm_residual_forward(out, sum, rstd, x, residual, weight, eps);
  forward_on_cpu(out, sum, rstd, x, residual, weight, eps);
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
  if (x.device().kind != DeviceKind::cpu) {
    return device::rms_norm_backward(grad_x, grad_weight, grad_out, grad_sum, x, weight, rstd, cu_seqlens);
  }
  if (x.dtype() == DType::f64) {
    return reference::rms_norm_backward(grad_x, grad_weight, grad_out, grad_sum, x, weight, rstd, cu_seqlens);
  }
  if (grad_weight.defined()) weight_grad_on_cpu(grad_weight, grad_out, x, rstd, cu_seqlens);
  input_grad_on_cpu(grad_x, grad_out, grad_sum, x, weight, rstd);
}

}  // namespace lathe::kernels
