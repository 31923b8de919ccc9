// The recurrence of Mamba-2 over a sequence's tokens (kernels/mamba2/mamba2.h). Saves what goes in.
#pragma once

#include <limits>

#include "autograd/ops/whole_sequences.h"
#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "kernels/mamba2/mamba2.h"

namespace lathe::autograd {

// What has no gradient.
struct Mamba2Shape {
  kernels::Mamba2Heads heads;
  float dt_min = 0.0f, dt_max = std::numeric_limits<float>::infinity();
};
// [H], each f32 or of the rows' dtype, trainable or not.
struct Mamba2Weights {
  Variable A_log, D, dt_bias;
};

// xbc [T, H P + 2 G N], dt [T, H] → [T, H P].
Variable mamba2(const Variable& xbc, const Variable& dt, const Mamba2Weights& weights, const Mamba2Shape& shape,
                const SequenceLayout& layout);

// The same of sequences that share their first tokens' rows, with the bits that whole sequences have.
Variable mamba2(const Variable& xbc, const Variable& dt, const Mamba2Weights& weights, const Mamba2Shape& shape,
                const SharedPrefixes& shared);

}  // namespace lathe::autograd
