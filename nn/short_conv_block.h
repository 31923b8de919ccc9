// The first half of a layer whose mixer is a short convolution: x + out(conv(in(norm(x)))), where the config has norms,
// and what is added normed and scaled.
#pragma once

#include "nn/attention_context.h"
#include "nn/linear.h"
#include "nn/residual.h"

namespace lathe::nn {

struct ShortConvBlock {
  int64_t layer = 0;              // its number, by which the context knows it
  float eps = 0;                  // of the norm
  autograd::Variable input_norm;  // [hidden]; undefined where the model has none
  Linear in_proj;                 // to B, C and x
  autograd::Variable weight;      // [hidden, 1, taps]
  autograd::Variable bias;        // [hidden]; undefined where there is none
  Linear out_proj;
  Residual residual;

  // x [T, hidden] → the same shape.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows, AttentionContext& context) const;
};

}  // namespace lathe::nn
