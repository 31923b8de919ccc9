// How packed sequences are cut into pieces, a block for each. Bounds travel as kernel arguments (at most 4 KiB of
// them), so that the operation allocates nothing and waits for nothing; what does not fit goes into another launch.
#pragma once

#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

inline constexpr int sequences_per_launch = 400;

struct Sequences {
  int count = 0;
  int32_t start[sequences_per_launch + 1];        // tokens
  int32_t first_piece[sequences_per_launch + 1];  // pieces of all sequences are numbered through

  __host__ __device__ int pieces() const { return first_piece[count]; }
};

// A piece: its number within its sequence, and the sequence's tokens.
struct SequencePiece {
  int index, start, length;
};

__device__ __forceinline__ SequencePiece find_piece(const Sequences& sequences, int number) {
  int low = 0, high = sequences.count;  // first_piece[low] ≤ number < first_piece[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (sequences.first_piece[middle] <= number ? low : high) = middle;
  }
  return {number - sequences.first_piece[low], sequences.start[low], sequences.start[low + 1] - sequences.start[low]};
}

// Calls launch_some(sequences) until all are done; pieces_of(length) says into how many pieces a sequence falls.
template <class PiecesOf, class LaunchSome>
void for_each_launch(const int32_t* cu_seqlens, int64_t sequences, PiecesOf pieces_of, LaunchSome launch_some) {
  for (int64_t first = 0; first < sequences; first += sequences_per_launch) {
    Sequences some;
    some.count = static_cast<int>(sequences - first < sequences_per_launch ? sequences - first : sequences_per_launch);
    some.start[0] = cu_seqlens[first];
    some.first_piece[0] = 0;
    for (int s = 0; s < some.count; ++s) {
      some.start[s + 1] = cu_seqlens[first + s + 1];
      some.first_piece[s + 1] = some.first_piece[s] + pieces_of(some.start[s + 1] - some.start[s]);
    }
    if (some.pieces() > 0) launch_some(some);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
