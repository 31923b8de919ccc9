#include "kernels/rms_norm/device.h"

#include "kernels/checks/expect.h"
#include "kernels/rms_norm/cuda.h"

namespace lathe::kernels::device {

void rms_norm_forward(const Tensor& out, const Tensor& sum, const Tensor& rstd, const Tensor& x, const Tensor& residual,
                      const Tensor& weight, float eps) {
  expect("rms_norm_forward", "x", x).dtype({DType::f32, DType::bf16});
  RmsNormForwardCuda args{.dtype = x.dtype(), .x = x.raw(), .x_stride = x.stride(0)};
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
  args.rows = x.dim(0);
  args.columns = x.dim(1);
  args.eps = eps;
  rms_norm_forward_rows(args, x.device());
}

void rms_norm_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_out, const Tensor& grad_sum,
                       const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& cu_seqlens) {
  expect("rms_norm_backward", "x", x).dtype({DType::f32, DType::bf16});
  RmsNormBackwardCuda args{.dtype = x.dtype(), .grad_x = grad_x.raw(), .grad_x_stride = grad_x.stride(0)};
  if (grad_weight.defined()) {
    args.grad_weight = grad_weight.data<float>();
    args.cu_seqlens = cu_seqlens.data<int32_t>();
    args.sequences = cu_seqlens.dim(0) - 1;
  }
  if (grad_sum.defined()) {
    args.grad_sum = grad_sum.raw();
    args.grad_sum_stride = grad_sum.stride(0);
  }
  args.grad_out = grad_out.raw();
  args.grad_out_stride = grad_out.stride(0);
  args.x = x.raw();
  args.x_stride = x.stride(0);
  args.weight = weight.raw();
  args.rstd = rstd.data<float>();
  args.rows = x.dim(0);
  args.columns = x.dim(1);
  rms_norm_backward_rows(args, x.device());
}

}  // namespace lathe::kernels::device
