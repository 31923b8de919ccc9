#include "nn/attention_block.h"

#include "autograd/ops/gated.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/view.h"
#include "nn/linear_each.h"

namespace lathe::nn {

using autograd::Variable;

Variable AttentionBlock::operator()(const Variable& x, const BatchRows& rows, AttentionContext& attention) const {
  const Variable normed = input_norm.defined() ? autograd::rms_norm(x, input_norm, eps, rows.layout) : x;
  std::vector<Variable> flat = queries_keys_values(normed, rows);
  const Variable gate = gated ? take_gate(flat[0]) : Variable();
  const Variable attended = attend(flat, rows.layout, attention);
  const Variable joined = autograd::view(attended, {x.dim(0), attended.dim(1) * head_dim});
  return residual(x, o_proj, gate.defined() ? autograd::glu(gate, joined) : joined, rows);
}

std::vector<Variable> AttentionBlock::queries_keys_values(const Variable& normed, const BatchRows& rows) const {
  if (qkv_proj.size() == 1) {
    const Variable all = qkv_proj[0](normed, rows);
    const int64_t kv_columns = (all.dim(1) - q_columns) / 2;
    return autograd::split_columns(all, {q_columns, kv_columns, kv_columns});
  }
  return multiply_each(qkv_proj, normed, rows);
}

// Leaves q of what q's linear gave; the gate [T, heads · head_dim].
Variable AttentionBlock::take_gate(Variable& q) const {
  const Shape heads{q.dim(0) * q.dim(1) / (2 * head_dim), 2 * head_dim}, rows{q.dim(0), q.dim(1) / 2};
  const std::vector<Variable> halves = autograd::split_columns(autograd::view(q, heads), {head_dim, head_dim});
  q = autograd::view(halves[0], rows);
  return autograd::view(halves[1], rows);
}

Variable AttentionBlock::attend(const std::vector<Variable>& flat, const autograd::SequenceLayout& layout,
                                AttentionContext& attention) const {
  const Variable v = heads_of(flat[2]);
  const auto is_of_heads = [&](const Variable& norm) { return !norm.defined() || norm.dim(0) == head_dim; };
  if (is_of_heads(q_norm) && is_of_heads(k_norm)) {
    const UnturnedHeads heads{heads_of(flat[0]), heads_of(flat[1]), v, q_norm, k_norm, eps, rope, layout, sinks};
    if (const std::optional<Variable> attended = attention.attend_unturned(layer, heads)) return *attended;
  }
  return attention.attend(layer, turned(flat[0], q_norm, rope.of_queries(), layout),
                          turned(flat[1], k_norm, rope.of_keys(), layout), v, sinks);
}

// [T, heads · head_dim] → [T, heads, head_dim].
Variable AttentionBlock::heads_of(const Variable& flat) const {
  return autograd::view(flat, {flat.dim(0), flat.dim(1) / head_dim, head_dim});
}

// The heads, normed where there is a norm, each token's turned by its position where there are tables.
Variable AttentionBlock::turned(const Variable& flat, const Variable& head_norm, const autograd::RopeTables& tables,
                                const autograd::SequenceLayout& layout) const {
  Variable normed = flat;
  if (head_norm.defined()) {
    const int64_t width = head_norm.dim(0);
    const Variable heads = autograd::view(flat, {flat.dim(0) * flat.dim(1) / width, width});
    normed = autograd::view(autograd::rms_norm(heads, head_norm, eps, layout), flat.shape());
  }
  return tables.cos.defined() ? autograd::rope(heads_of(normed), tables, layout) : heads_of(normed);
}

}  // namespace lathe::nn
