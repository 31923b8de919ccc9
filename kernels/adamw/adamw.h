// AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW computes it:
//   g = grad_scale · grad;  w −= lr · weight_decay · w;  m = β1·m + (1−β1)·g;  v = β2·v + (1−β2)·g²
//   w −= lr/(1−β1^step) · m / (√v/√(1−β2^step) + eps)
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// In double, so that 1 − β is not β's rounding error. A body computes in the tensors' dtype.
struct AdamWParams {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0;
  double grad_scale = 1.0;  // the clip factor
  int64_t step = 1;         // counts from 1
};

// weight, grad, m, v: contiguous, one shape, all f32 or all f64. weight, m and v change in place. Elementwise: no order to
// keep. step < 1 throws ConfigError.
void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params);

}  // namespace lathe::kernels
