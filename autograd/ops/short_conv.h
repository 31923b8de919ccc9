// A gated short convolution over a sequence's tokens (kernels/short_conv/short_conv.h). Saves what goes in.
#pragma once

#include "autograd/ops/whole_sequences.h"
#include "autograd/sequence_layout.h"
#include "autograd/variable.h"

namespace lathe::autograd {

// bcx [T, 3 H] → [T, H]. weight [H, 1, L], as PyTorch has it, and bias [H], which may be undefined, of the same dtype,
// trainable or not.
Variable short_conv(const Variable& bcx, const Variable& weight, const Variable& bias, const SequenceLayout& layout);

// The same of sequences that share their first tokens' rows, with the bits that whole sequences have.
Variable short_conv(const Variable& bcx, const Variable& weight, const Variable& bias, const SharedPrefixes& shared);

}  // namespace lathe::autograd
