// AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW computes it:
//   g = grad_scale · grad;  w −= lr · weight_decay · w;  m = β1·m + (1−β1)·g;  v = β2·v + (1−β2)·g²
//   w −= lr/(1−β1^step) · m / (√v/√(1−β2^step) + eps)
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

struct AdamWParams {
  float learning_rate = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0.0f;
  float grad_scale = 1.0f;  // the clip factor
  int64_t step = 1;         // counts from 1
};

// weight, grad, m, v: contiguous, one shape, f32 (all f64 for f64). Elementwise: no order to keep.
void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params);

}  // namespace lathe::kernels
