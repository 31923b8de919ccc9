// The first half of a layer: x + o(attention(q, k, v)), where the config has norms of the normed x, and what is added
// normed and scaled.
#pragma once

#include "autograd/ops/rope.h"
#include "nn/attention_context.h"
#include "nn/linear.h"
#include "nn/residual.h"

namespace lathe::nn {

struct AttentionBlock {
  int64_t layer = 0;  // its number, by which the context knows it
  int64_t head_dim = 0;
  float eps = 0;              // of the norms
  autograd::RopeTables rope;  // undefined where q and k are not turned
  int64_t q_columns = 0;      // heads · head_dim; k and v have kv_heads · head_dim
  bool gated = false;         // q's linear gives each head's q and its gate, side by side (Qwen3.5)
  // Undefined where the model has none: [hidden]; q's and k's are [head_dim], over each head, or as wide as all.
  autograd::Variable input_norm, q_norm, k_norm;
  autograd::Variable sinks;      // [heads]; undefined where the model has none
  std::vector<Linear> qkv_proj;  // q, k and v, or one of them all
  Linear o_proj;
  Residual residual;

  // x [T, hidden] → the same shape.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows, AttentionContext& attention) const;

 private:
  std::vector<autograd::Variable> queries_keys_values(const autograd::Variable& normed, const BatchRows& rows) const;
  autograd::Variable take_gate(autograd::Variable& q) const;
  autograd::Variable attend(const std::vector<autograd::Variable>& flat, const autograd::SequenceLayout& layout,
                            AttentionContext& attention) const;
  autograd::Variable heads_of(const autograd::Variable& flat) const;
  autograd::Variable turned(const autograd::Variable& flat, const autograd::Variable& head_norm,
                            const autograd::RopeTables& tables, const autograd::SequenceLayout& layout) const;
};

}  // namespace lathe::nn
