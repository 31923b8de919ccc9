#include "nn/attention_block.h"

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/view.h"

namespace lathe::nn {

using autograd::Variable;

Variable AttentionBlock::operator()(const Variable& x, const BatchRows& rows, AttentionContext& attention) const {
  const Variable normed = autograd::rms_norm(x, input_norm, eps, rows.layout);
  const Variable q = turned(q_proj(normed, rows), q_norm, rows.layout);
  const Variable k = turned(k_proj(normed, rows), k_norm, rows.layout);
  const Variable v = heads_of(v_proj(normed, rows));
  const Variable attended = attention.attend(layer, q, k, v);
  const Variable flat = autograd::view(attended, {x.dim(0), attended.dim(1) * head_dim});
  if (!output_norm.defined()) return o_proj(flat, rows, x);
  return autograd::add(x, autograd::rms_norm(o_proj(flat, rows), output_norm, eps, rows.layout));
}

// [T, heads · head_dim] → [T, heads, head_dim].
Variable AttentionBlock::heads_of(const Variable& flat) const {
  return autograd::view(flat, {flat.dim(0), flat.dim(1) / head_dim, head_dim});
}

// The heads, normed where there is a norm, each token's turned by its position where there are tables.
Variable AttentionBlock::turned(const Variable& flat, const Variable& head_norm,
                                const autograd::SequenceLayout& layout) const {
  Variable normed = flat;
  if (head_norm.defined()) {
    const Variable heads = autograd::view(flat, {flat.dim(0) * flat.dim(1) / head_dim, head_dim});
    normed = autograd::view(autograd::rms_norm(heads, head_norm, eps, layout), flat.shape());
  }
  return rope.cos.defined() ? autograd::rope(heads_of(normed), rope, layout) : heads_of(normed);
}

}  // namespace lathe::nn
