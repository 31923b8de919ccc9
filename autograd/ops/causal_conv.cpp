#include "autograd/ops/causal_conv.h"

#include "autograd/ops/token_convolution.h"
#include "kernels/causal_conv/causal_conv.h"

namespace lathe::autograd {
namespace {

constexpr TokenConvolution causal_conv_kernels{"causal_conv", kernels::causal_conv_forward,
                                               kernels::causal_conv_backward};

}  // namespace

Variable causal_conv(const Variable& x, const Variable& weight, const Variable& bias, const SequenceLayout& layout) {
  return token_convolution(causal_conv_kernels, x, weight, bias, layout);
}

Variable causal_conv(const Variable& x, const Variable& weight, const Variable& bias, const SharedPrefixes& shared) {
  return token_convolution(causal_conv_kernels, x, weight, bias, shared);
}

}  // namespace lathe::autograd
