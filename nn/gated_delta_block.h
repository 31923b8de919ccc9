// The first half of a layer whose mixer is a gated delta net (Yang, Kautz and Hatamizadeh 2024; transformers'
// Qwen3_5GatedDeltaNet and Qwen3NextGatedDeltaNet): x + out(norm(delta(conv(q, k, v), a, b)) ∘ silu(z)), where q, k, v,
// z, b and a are products of the normed x, and what is added normed and scaled where the config has it so.
#pragma once

#include "nn/attention_context.h"
#include "nn/linear.h"
#include "nn/residual.h"

namespace lathe::nn {

struct GatedDeltaBlock {
  int64_t layer = 0;              // its number, by which the context knows it
  float eps = 0;                  // of the norms
  autograd::Variable input_norm;  // [hidden]; undefined where the model has none
  std::vector<Linear> in_proj;    // q, k and v in one, z, b and a; or two, by key heads: q, k, v and z, b and a
  DeltaWeights weights;
  autograd::Variable head_norm;  // [value_head_dim], of what each value head gives
  Linear out_proj;
  Residual residual;

  // x [T, hidden] → the same shape.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows, AttentionContext& context) const;

 private:
  struct Projected {
    autograd::Variable qkv, z, b, a;
  };
  Projected project(const autograd::Variable& normed, const BatchRows& rows) const;
};

}  // namespace lathe::nn
