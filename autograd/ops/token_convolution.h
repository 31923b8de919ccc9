// What short_conv and causal_conv are to the tape: a convolution over a sequence's tokens that takes each column by
// itself. Saves what goes in.
#pragma once

#include <string_view>

#include "autograd/ops/whole_sequences.h"
#include "autograd/sequence_layout.h"
#include "autograd/variable.h"

namespace lathe::autograd {

// The kernels: x [T, …] → out [T, C], weight [C, L], bias [C] or undefined.
struct TokenConvolution {
  std::string_view name;
  void (*forward)(const Tensor& out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                  const Tensor& cu_seqlens);
  void (*backward)(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_bias, const Tensor& grad_out,
                   const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& cu_seqlens);
};

// weight [C, 1, L], as PyTorch has it, and bias [C], which may be undefined.
Variable token_convolution(const TokenConvolution& kernels, const Variable& x, const Variable& weight,
                           const Variable& bias, const SequenceLayout& layout);

// The same of sequences that share their first tokens' rows, with the bits that whole sequences have.
Variable token_convolution(const TokenConvolution& kernels, const Variable& x, const Variable& weight,
                           const Variable& bias, const SharedPrefixes& shared);

}  // namespace lathe::autograd
