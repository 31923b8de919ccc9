// The second half of a layer: x + down(act(gate) · up) of the normed x.
#pragma once

#include "nn/config.h"
#include "nn/linear.h"

namespace lathe::nn {

struct FeedForwardBlock {
  float eps = 0;  // of the norm
  Activation activation = Activation::silu;
  autograd::Variable norm;  // [hidden]
  Linear gate_proj, up_proj, down_proj;

  // x [T, hidden] → the same shape.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows) const;
};

}  // namespace lathe::nn
