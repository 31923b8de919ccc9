#include "autograd/ops/short_conv.h"

#include "autograd/ops/token_convolution.h"
#include "kernels/short_conv/short_conv.h"

namespace lathe::autograd {
namespace {

constexpr TokenConvolution short_conv_kernels{"short_conv", kernels::short_conv_forward, kernels::short_conv_backward};

}  // namespace

Variable short_conv(const Variable& bcx, const Variable& weight, const Variable& bias, const SequenceLayout& layout) {
  return token_convolution(short_conv_kernels, bcx, weight, bias, layout);
}

Variable short_conv(const Variable& bcx, const Variable& weight, const Variable& bias, const SharedPrefixes& shared) {
  return token_convolution(short_conv_kernels, bcx, weight, bias, shared);
}

}  // namespace lathe::autograd
