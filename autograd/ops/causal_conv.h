// A causal convolution over a sequence's tokens, and silu (kernels/causal_conv/causal_conv.h). Saves what goes in.
#pragma once

#include "autograd/ops/whole_sequences.h"
#include "autograd/sequence_layout.h"
#include "autograd/variable.h"

namespace lathe::autograd {

// x [T, C] → [T, C]. weight [C, 1, L], as PyTorch has it, and bias [C], which may be undefined, of the same dtype,
// trainable or not.
Variable causal_conv(const Variable& x, const Variable& weight, const Variable& bias, const SequenceLayout& layout);

// The same of sequences that share their first tokens' rows, with the bits that whole sequences have.
Variable causal_conv(const Variable& x, const Variable& weight, const Variable& bias, const SharedPrefixes& shared);

}  // namespace lathe::autograd
