#include "nn/short_conv_block.h"

#include "autograd/ops/rms_norm.h"

namespace lathe::nn {

using autograd::Variable;

Variable ShortConvBlock::operator()(const Variable& x, const BatchRows& rows, AttentionContext& context) const {
  const Variable normed = input_norm.defined() ? autograd::rms_norm(x, input_norm, eps, rows.layout) : x;
  return residual(x, out_proj, context.convolve(layer, in_proj(normed, rows), weight, bias), rows);
}

}  // namespace lathe::nn
