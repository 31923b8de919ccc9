// Stochastic gradient descent as torch.optim.SGD computes it, without momentum (what transformers' optim "sgd" is):
//   g = grad_scale · grad + weight_decay · w;  w −= lr · g
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

struct SgdParams {
  double learning_rate = 1e-3, weight_decay = 0.0;
  double grad_scale = 1.0;  // the clip factor
};

// weight, grad: contiguous, one shape, both f32 or both f64. weight changes in place. Elementwise: no order to keep.
void sgd(const Tensor& weight, const Tensor& grad, const SgdParams& params);

}  // namespace lathe::kernels
