#include "nn/feed_forward_block.h"

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/gated.h"
#include "autograd/ops/rms_norm.h"

namespace lathe::nn {

using autograd::Variable;

Variable FeedForwardBlock::operator()(const Variable& x, const BatchRows& rows) const {
  const Variable normed = autograd::rms_norm(x, norm, eps, rows.layout);
  // up first: the backward goes the other way round, and the order in which it adds gate's and up's gradients decides
  // the last bit.
  const Variable up = up_proj(normed, rows), gate = gate_proj(normed, rows);
  const Variable activated = activation == Activation::silu ? autograd::swiglu(gate, up) : autograd::geglu(gate, up);
  if (!output_norm.defined()) return down_proj(activated, rows, x);
  return autograd::add(x, autograd::rms_norm(down_proj(activated, rows), output_norm, eps, rows.layout));
}

}  // namespace lathe::nn
