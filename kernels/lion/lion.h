// Lion (Chen et al. 2023) as bitsandbytes' Lion with 32-bit state computes it (transformers' optim "lion_32bit"):
//   g = grad_scale · grad;  w −= lr · weight_decay · w;  w −= lr · sign(β1·m + (1−β1)·g);  m = β2·m + (1−β2)·g
#pragma once

#include <span>

#include "core/tensor.h"

namespace lathe::kernels {

struct LionParams {
  double learning_rate = 1e-4;
  double beta1 = 0.9, beta2 = 0.99, weight_decay = 0.0;
  double grad_scale = 1.0;  // the clip factor
};

// weight, grad, m: contiguous, one shape, all f32 or all f64. weight and m change in place; the sign of 0 is 0.
// Elementwise: no order to keep.
struct LionTensors {
  Tensor weight, grad, m;
  Tensor rounded = {};  // bf16 | f16, may be undefined: takes the new weight, rounded to nearest even
};
void lion(const Tensor& weight, const Tensor& grad, const Tensor& m, const LionParams& params);
// Of many, on one device, where as many as fit are one launch: the bits of one after another. `clip` as adamw()'s.
void lion(std::span<const LionTensors> tensors, const LionParams& params, const Tensor& clip = {});

}  // namespace lathe::kernels
