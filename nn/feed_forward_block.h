// The second half of a layer: x + down(act(gate) · up) of the normed x, what is added normed too where there is a
// norm.
#pragma once

#include "nn/config.h"
#include "nn/linear.h"

namespace lathe::nn {

struct FeedForwardBlock {
  float eps = 0;  // of the norms
  Activation activation = Activation::silu;
  autograd::Variable norm;         // [hidden]
  autograd::Variable output_norm;  // [hidden]; undefined where the model has none
  Linear gate_proj, up_proj, down_proj;

  // x [T, hidden] → the same shape.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows) const;
};

}  // namespace lathe::nn
