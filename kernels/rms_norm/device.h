// rms_norm.h on device tensors (cuda, simt), checked by the caller; residual and sum undefined: plain.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::device {

void rms_norm_forward(const Tensor& out, const Tensor& sum, const Tensor& rstd, const Tensor& x, const Tensor& residual,
                      const Tensor& weight, float eps);
void rms_norm_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_out, const Tensor& grad_sum,
                       const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& cu_seqlens);

}  // namespace lathe::kernels::device
