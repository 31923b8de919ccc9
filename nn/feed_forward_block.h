// The second half of a layer: x + down(act(gate) · up), where the config has norms of the normed x, and what is added
// normed and scaled; or a mixture of experts in its place, or beside it as the expert that all tokens share.
#pragma once

#include <optional>
#include <vector>

#include "nn/config.h"
#include "nn/experts.h"
#include "nn/linear.h"

namespace lathe::nn {

struct FeedForwardBlock {
  float eps = 0;  // of the norms
  double residual_multiplier = 1;
  Activation activation = Activation::silu;
  autograd::Variable norm, output_norm;  // [hidden]; undefined where the model has none
  std::vector<Linear>
      gate_up_proj;  // gate and up, or one of both; with experts those of the shared one, if there is one
  std::optional<Linear> down_proj = {};
  std::optional<Linear> shared_gate = {};  // [1, hidden]: of the shared expert
  std::optional<Experts> experts = {};

  // x [T, hidden] → the same shape.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows) const;

 private:
  autograd::Variable gated(const autograd::Variable& normed, const BatchRows& rows) const;
  autograd::Variable mixture(const autograd::Variable& normed, const BatchRows& rows) const;
};

}  // namespace lathe::nn
