#include "nn/mamba2_block.h"

#include "autograd/ops/gated.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/view.h"

namespace lathe::nn {

using autograd::Variable;

Variable Mamba2Block::operator()(const Variable& x, const BatchRows& rows, AttentionContext& context) const {
  const Variable normed = input_norm.defined() ? autograd::rms_norm(x, input_norm, eps, rows.layout) : x;
  const kernels::Mamba2Heads& heads = weights.shape.heads;
  const std::vector<Variable> parts =
      autograd::split_columns(in_proj(normed, rows), {heads.out_columns(), heads.xbc_columns(), heads.heads});
  const Variable mixed = context.mix_by_mamba2(layer, parts[1], parts[2], weights);
  return residual(x, out_proj, autograd::rms_norm(autograd::swiglu(parts[0], mixed), norm, eps, rows.layout), rows);
}

}  // namespace lathe::nn
