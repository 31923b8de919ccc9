#include "nn/feed_forward_block.h"

#include <utility>

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/linear_each.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/row_gate.h"
#include "autograd/ops/view.h"
#include "autograd/recording.h"
#include "nn/gated.h"
#include "nn/linear_each.h"

namespace lathe::nn {

using autograd::Variable;

Variable FeedForwardBlock::operator()(const Variable& x, const BatchRows& rows) const {
  const Variable normed = norm.defined() ? autograd::rms_norm(x, norm, eps, rows.layout) : x;
  if (!output_norm.defined() && residual_multiplier == 1) {
    if (!experts) return (*down_proj)(gated(normed, rows), rows, x);
    if (!down_proj) return (*experts)(normed, rows, x);
  }
  Variable added = experts ? mixture(normed, rows) : (*down_proj)(gated(normed, rows), rows);
  if (output_norm.defined()) added = autograd::rms_norm(added, output_norm, eps, rows.layout);
  return autograd::add(x, added, residual_multiplier);
}

Variable FeedForwardBlock::mixture(const Variable& normed, const BatchRows& rows) const {
  const Variable chosen = (*experts)(normed, rows);
  if (!down_proj) return chosen;
  if (!shared_gate) return (*down_proj)(gated(normed, rows), rows, chosen);
  return autograd::row_gate((*shared_gate)(normed, rows), (*down_proj)(gated(normed, rows), rows), chosen);
}

Variable FeedForwardBlock::gated(const Variable& normed, const BatchRows& rows) const {
  std::vector<Variable> gate_up(2);
  if (gate_up_proj.size() == 1) {
    const Variable both = gate_up_proj[0](normed, rows);
    gate_up = autograd::split_columns(both, {both.dim(1) / 2, both.dim(1) / 2});
  } else if (activation != Activation::clamped_silu && is_alone(gate_up_proj[0], rows) &&
             is_alone(gate_up_proj[1], rows)) {
    const auto gate_activation =
        activation == Activation::silu ? kernels::Activation::silu : kernels::Activation::gelu_tanh;
    const Linear &gate = gate_up_proj[0], &up = gate_up_proj[1];
    return autograd::gated_linear(normed, {gate.weight, gate.bias.value()}, {up.weight, up.bias.value()},
                                  gate_activation);
  } else if (!autograd::grad_enabled()) {
    gate_up = multiply_each(gate_up_proj, normed, rows);
  } else {
    // up first: the backward goes the other way round, and the order in which it adds gate's and up's gradients decides
    // the last bit.
    const Linear* const up_gate[] = {&gate_up_proj[1], &gate_up_proj[0]};
    gate_up = multiply_in_turn(up_gate, normed, rows);
    std::swap(gate_up[0], gate_up[1]);
  }
  return nn::gated(activation, gate_up[0], gate_up[1]);
}

}  // namespace lathe::nn
