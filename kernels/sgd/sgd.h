// Stochastic gradient descent as torch.optim.SGD computes it, without momentum (what transformers' optim "sgd" is):
//   g = grad_scale · grad + weight_decay · w;  w −= lr · g
#pragma once

#include <span>

#include "core/tensor.h"

namespace lathe::kernels {

struct SgdParams {
  double learning_rate = 1e-3, weight_decay = 0.0;
  double grad_scale = 1.0;  // the clip factor
};

// weight, grad: contiguous, one shape, both f32 or both f64. weight changes in place. Elementwise: no order to keep.
struct SgdTensors {
  Tensor weight, grad;
  Tensor rounded = {};  // bf16 | f16, may be undefined: takes the new weight, rounded to nearest even
};
void sgd(const Tensor& weight, const Tensor& grad, const SgdParams& params);
// Of many, on one device, where as many as fit are one launch: the bits of one after another. `clip` as adamw()'s.
void sgd(std::span<const SgdTensors> tensors, const SgdParams& params, const Tensor& clip = {});

}  // namespace lathe::kernels
