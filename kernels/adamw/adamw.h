// AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW computes it:
//   g = grad_scale · grad;  w −= lr · weight_decay · w;  m = β1·m + (1−β1)·g;  v = β2·v + (1−β2)·g²
//   w −= lr/(1−β1^step) · m / (√v/√(1−β2^step) + eps)
#pragma once

#include <span>

#include "core/tensor.h"

namespace lathe::kernels {

// In double: in f32, 1 − β would be mostly the rounding error of β. A body computes in the tensors' dtype.
struct AdamWParams {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0;
  double grad_scale = 1.0;  // the clip factor
  int64_t step = 1;         // counts from 1
};

// weight, grad, m, v: contiguous, one shape, all f32 or all f64. weight, m and v change in place. Elementwise: no order
// to keep. step < 1 throws ConfigError.
struct AdamWTensors {
  Tensor weight, grad, m, v;
  Tensor rounded = {};  // bf16 | f16, may be undefined: takes the new weight, rounded to nearest even
};
void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params);
// Of many, on one device, where as many as fit are one launch: the bits of one after another. `clip`, where it is
// defined, is clip_factor()'s (kernels/gradient_norm/gradient_norm.h), on that device: its factor takes grad_scale's
// place, and one that is NaN leaves everything as it is.
void adamw(std::span<const AdamWTensors> tensors, const AdamWParams& params, const Tensor& clip = {});

// The states in 8 bits (Dettmers et al. 2022; bitsandbytes' AdamW8bit): blocks of 256 elements of the flattened tensor,
// the last may be shorter. An element is map[code] · absmax of its block, with the signed dynamic map for m and the
// unsigned one for v (kernels/quantization/dynamic_map.h). New states in f32 (f64) move the weight as above; then
// absmax = max |state| of the block and a code is the nearest to state / absmax (0 where absmax is 0). Zeros
// everywhere are the states before the first step.
struct AdamW8bitStates {
  Tensor m, v;                // u8, of weight's shape
  Tensor m_absmax, v_absmax;  // of weight's dtype [⌈n / 256⌉]
};
inline constexpr int64_t adamw_8bit_block = 256;
// bitsandbytes keeps the states of smaller tensors in f32.
inline constexpr int64_t adamw_8bit_least_elements = 4096;

// weight, grad: contiguous, one shape, both f32 or both f64.
struct AdamW8bitTensors {
  Tensor weight, grad;
  AdamW8bitStates states;
  Tensor rounded = {};  // as above
};
void adamw_8bit(const Tensor& weight, const Tensor& grad, const AdamW8bitStates& states, const AdamWParams& params);
// As adamw() of many.
void adamw_8bit(std::span<const AdamW8bitTensors> tensors, const AdamWParams& params, const Tensor& clip = {});

}  // namespace lathe::kernels
