#include "nn/feed_forward_block.h"

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/gated.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/view.h"
#include "kernels/matmul/joined.h"

namespace lathe::nn {

using autograd::Variable;

Variable FeedForwardBlock::operator()(const Variable& x, const BatchRows& rows) const {
  const Variable normed = norm.defined() ? autograd::rms_norm(x, norm, eps, rows.layout) : x;
  if (!experts && !output_norm.defined() && residual_multiplier == 1) return (*down_proj)(gated(normed, rows), rows, x);
  Variable added = experts ? (*experts)(normed, rows.layout) : (*down_proj)(gated(normed, rows), rows);
  if (output_norm.defined()) added = autograd::rms_norm(added, output_norm, eps, rows.layout);
  return autograd::add(x, added, residual_multiplier);
}

Variable FeedForwardBlock::gated(const Variable& normed, const BatchRows& rows) const {
  if (join(gate_up_proj, normed, rows) && !gate_up_proj[0].bias.defined() && !gate_up_proj[1].bias.defined())
    return gated_product(normed);
  std::vector<Variable> gate_up(2);
  if (gate_up_proj.size() == 1) {
    const Variable both = gate_up_proj[0](normed, rows);
    gate_up = autograd::split_columns(both, {both.dim(1) / 2, both.dim(1) / 2});
  } else {
    // up first: the backward goes the other way round, and the order in which it adds gate's and up's gradients decides
    // the last bit.
    gate_up[1] = gate_up_proj[1](normed, rows);
    gate_up[0] = gate_up_proj[0](normed, rows);
  }
  return activation == Activation::silu ? autograd::swiglu(gate_up[0], gate_up[1])
                                        : autograd::geglu(gate_up[0], gate_up[1]);
}

Variable FeedForwardBlock::gated_product(const Variable& normed) const {
  const Tensor& x = normed.value();
  const kernels::Weight &gate = gate_up_proj[0].weight.value(), &up = gate_up_proj[1].weight.value();
  const Tensor out = Tensor::empty({x.dim(0), gate.rows()}, x.dtype(), x.device());
  kernels::gated_linear_forward(
      out, x, gate, up, activation == Activation::silu ? kernels::Activation::silu : kernels::Activation::gelu_tanh);
  return out;
}

}  // namespace lathe::nn
