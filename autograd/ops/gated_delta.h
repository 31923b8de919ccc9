// The gated delta rule over a sequence's tokens (kernels/gated_delta/gated_delta.h). Saves what goes in.
#pragma once

#include "autograd/ops/whole_sequences.h"
#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "kernels/gated_delta/gated_delta.h"

namespace lathe::autograd {

// qkv [T, 2 Hk Dk + Hv Dv], a and b [T, Hv] → [T, Hv Dv]. A_log and dt_bias [Hv], each f32 or of the rows' dtype,
// trainable or not.
Variable gated_delta(const Variable& qkv, const Variable& a, const Variable& b, const Variable& A_log,
                     const Variable& dt_bias, const kernels::GatedDeltaHeads& heads, const SequenceLayout& layout);

// The same of sequences that share their first tokens' rows, with the bits that whole sequences have.
Variable gated_delta(const Variable& qkv, const Variable& a, const Variable& b, const Variable& A_log,
                     const Variable& dt_bias, const kernels::GatedDeltaHeads& heads, const SharedPrefixes& shared);

}  // namespace lathe::autograd
