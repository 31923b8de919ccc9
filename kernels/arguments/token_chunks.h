// Chunks of a sequence's tokens, at whose bounds a recurrence's backward keeps states.
#pragma once

#include <cstdint>

#include "kernels/simd/inline.h"

// LATHE_INLINE, of what kernels on cards call as well.
#if defined(__CUDACC__)
#define LATHE_EITHER_INLINE __host__ __device__ __forceinline__
#else
#define LATHE_EITHER_INLINE LATHE_INLINE
#endif

namespace lathe::kernels {

// Tokens, counted from a sequence's first.
inline constexpr int64_t token_chunk = 64;
// Chunk c of sequence s is the (first row of s / 64 + s + c)-th: a few of these numbers have no chunk.
LATHE_EITHER_INLINE int64_t first_token_chunk(int64_t sequence, int64_t first_row) {
  return first_row / token_chunk + sequence;
}
LATHE_EITHER_INLINE int64_t token_chunk_count(int64_t sequences, int64_t rows) {
  return first_token_chunk(sequences, rows);
}

struct TokenChunk {
  int64_t sequence, begin, end;  // its rows; none where the number has no chunk
  bool is_first, is_last;        // of its sequence
};
// bounds [sequences + 1], where they are read.
LATHE_INLINE TokenChunk find_token_chunk(const int32_t* bounds, int64_t sequences, int64_t number) {
  int64_t s = 0;
  while (s + 1 < sequences && first_token_chunk(s + 1, bounds[s + 1]) <= number) ++s;
  const int64_t of_sequence = number - first_token_chunk(s, bounds[s]), end = bounds[s + 1];
  const int64_t begin = bounds[s] + of_sequence * token_chunk;
  if (begin >= end) return {s, end, end, false, false};
  const int64_t last = begin + token_chunk;
  return {s, begin, end < last ? end : last, of_sequence == 0, end <= last};
}

}  // namespace lathe::kernels
