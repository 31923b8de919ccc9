// The first half of a layer whose mixer is Mamba-2's (Dao and Gu 2024; transformers' GraniteMoeHybridMambaLayer):
// x + out(norm(mamba2(conv(x, B, C), dt) ∘ silu(gate))), where the gate, x, B and C, and dt are one product of the
// normed x, and what is added scaled where the config has it so.
#pragma once

#include "nn/attention_context.h"
#include "nn/linear.h"
#include "nn/residual.h"

namespace lathe::nn {

struct Mamba2Block {
  int64_t layer = 0;              // its number, by which the context knows it
  float eps = 0;                  // of the norms
  autograd::Variable input_norm;  // [hidden]; undefined where the model has none
  Linear in_proj;                 // the gate [out_columns], x, B and C [xbc_columns] and dt [heads] in one
  Mamba2MixerWeights weights;
  autograd::Variable norm;  // [out_columns]
  Linear out_proj;
  Residual residual;

  // x [T, hidden] → the same shape.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows, AttentionContext& context) const;
};

}  // namespace lathe::nn
