// How T packed tokens fall into sequences. Attention stays inside a sequence, and sums over tokens run
// sequence by sequence, so that a packed or accumulated batch gives the same bits as its sequences one by
// one.
#pragma once

#include <span>

#include "core/tensor.h"

namespace lathe::autograd {

struct SequenceRun;

// Three small CPU tensors, shared by all operations of a step (copies are cheap).
struct SequenceLayout {
  Tensor cu_seqlens;      // i32 [S + 1]: sequence s holds tokens [cu_seqlens[s], cu_seqlens[s + 1])
  Tensor positions;       // i32 [T]: each token's position in its own sequence, for rope
  Tensor sample_numbers;  // i32 [S]: unique within an optimiser step; random numbers are keyed by (sample,
                          // position)

  int64_t sequences() const { return cu_seqlens.numel() - 1; }
  int64_t tokens() const { return positions.numel(); }

  // cu_seqlens where each token has several rows (one for each head): rows must be a multiple of tokens().
  Tensor bounds_of_rows(int64_t rows) const;

  // Sequences of these lengths, positions from 0. Without sample numbers they are counted from first_sample:
  // the second micro-batch of a step goes on where the first ended.
  static SequenceLayout of(std::span<const int32_t> lengths, int32_t first_sample = 0);

  // Sequences [first, last).
  SequenceRun run(int64_t first, int64_t last) const;
};

// Consecutive sequences of a layout, for what applies to them alone.
struct SequenceRun {
  int64_t first_token = 0;  // in the whole
  SequenceLayout layout;    // their own: cu_seqlens begins at 0
  int64_t end_token() const { return first_token + layout.tokens(); }
};

}  // namespace lathe::autograd
