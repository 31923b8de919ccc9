#include "nn/gated_delta_block.h"

#include "autograd/ops/gated.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/view.h"
#include "nn/linear_each.h"

namespace lathe::nn {

using autograd::Variable;

Variable GatedDeltaBlock::operator()(const Variable& x, const BatchRows& rows, AttentionContext& context) const {
  const Variable normed = input_norm.defined() ? autograd::rms_norm(x, input_norm, eps, rows.layout) : x;
  const Projected projected = project(normed, rows);
  const Variable mixed = context.mix_by_delta(layer, projected.qkv, projected.a, projected.b, weights);
  const int64_t width = head_norm.dim(0);
  const Variable heads = autograd::view(mixed, {mixed.dim(0) * mixed.dim(1) / width, width});
  const Variable normed_heads = autograd::view(autograd::rms_norm(heads, head_norm, eps, rows.layout), mixed.shape());
  return residual(x, out_proj, autograd::swiglu(projected.z, normed_heads), rows);
}

GatedDeltaBlock::Projected GatedDeltaBlock::project(const Variable& normed, const BatchRows& rows) const {
  const std::vector<Variable> projected = multiply_each(in_proj, normed, rows);
  if (projected.size() == 4) return {projected[0], projected[1], projected[2], projected[3]};
  const kernels::GatedDeltaHeads& heads = weights.heads;
  const int64_t keys = heads.key_heads, per_key = heads.value_heads / keys, values = per_key * heads.value_dim;
  const std::vector<Variable> qkvz =
      autograd::split_heads(projected[0], keys, {heads.key_dim, heads.key_dim, values, values});
  const std::vector<Variable> ba = autograd::split_heads(projected[1], keys, {per_key, per_key});
  return {autograd::join_columns({qkvz[0], qkvz[1], qkvz[2]}), qkvz[3], ba[0], ba[1]};
}

}  // namespace lathe::nn
