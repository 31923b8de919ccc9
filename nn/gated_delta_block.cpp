#include "nn/gated_delta_block.h"

#include "autograd/ops/gated.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/view.h"
#include "nn/linear_each.h"

namespace lathe::nn {

using autograd::Variable;

Variable GatedDeltaBlock::operator()(const Variable& x, const BatchRows& rows, AttentionContext& context) const {
  const Variable normed = input_norm.defined() ? autograd::rms_norm(x, input_norm, eps, rows.layout) : x;
  const std::vector<Variable> projected = multiply_each(in_proj, normed, rows);
  const Variable& z = projected[1];
  const Variable mixed = context.mix_by_delta(layer, projected[0], projected[3], projected[2], weights);
  const int64_t width = head_norm.dim(0);
  const Variable heads = autograd::view(mixed, {mixed.dim(0) * mixed.dim(1) / width, width});
  const Variable normed_heads = autograd::view(autograd::rms_norm(heads, head_norm, eps, rows.layout), mixed.shape());
  return residual(x, out_proj, autograd::swiglu(z, normed_heads), rows);
}

}  // namespace lathe::nn
