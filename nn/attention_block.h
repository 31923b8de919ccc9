// The first half of a layer: x + o(attention(q, k, v)) of the normed x, what is added normed too where there is a norm.
#pragma once

#include "autograd/ops/rope.h"
#include "nn/attention_context.h"
#include "nn/linear.h"

namespace lathe::nn {

struct AttentionBlock {
  int64_t layer = 0;  // its number, by which the context knows it
  int64_t head_dim = 0;
  float eps = 0;                      // of the norms
  autograd::RopeTables rope;          // undefined where q and k are not turned
  autograd::Variable input_norm;      // [hidden]
  autograd::Variable output_norm;     // [hidden]; undefined where the model has none
  autograd::Variable q_norm, k_norm;  // [head_dim], over each head; undefined where the model has none
  Linear q_proj, k_proj, v_proj, o_proj;

  // x [T, hidden] → the same shape.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows, AttentionContext& attention) const;

 private:
  autograd::Variable heads_of(const autograd::Variable& flat) const;
  autograd::Variable turned(const autograd::Variable& flat, const autograd::Variable& head_norm,
                            const autograd::SequenceLayout& layout) const;
};

}  // namespace lathe::nn
