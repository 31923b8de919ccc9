// Which rows a chunk of a sequence's tokens has (kernels/arguments/token_chunks.h).
#pragma once

#include "kernels/cuda/column_pairs.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::column_pairs {

// The sequence that a chunk's number belongs to.
__device__ __forceinline__ int sequence_of_chunk(const SequenceBounds& bounds, int64_t first_sequence, int64_t chunk) {
  int first = 0, last = bounds.count - 1;
  while (first < last) {
    const int middle = (first + last) / 2;
    if (first_token_chunk(first_sequence + middle + 1, bounds.at[middle + 1]) > chunk) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  return first;
}

struct ChunkRows {
  int64_t begin, end;
  bool is_first, is_last;  // of its sequence
};
// Of a number without a chunk: no rows.
__device__ __forceinline__ ChunkRows rows_of_chunk(const SequenceBounds& bounds, int64_t first_sequence,
                                                   int64_t chunk) {
  const int s = sequence_of_chunk(bounds, first_sequence, chunk);
  const int64_t of_sequence = chunk - first_token_chunk(first_sequence + s, bounds.at[s]);
  const int64_t begin = bounds.at[s] + of_sequence * token_chunk, end = bounds.at[s + 1];
  if (begin >= end) return {};
  const bool is_last = end - begin <= token_chunk;
  return {begin, is_last ? end : begin + token_chunk, of_sequence == 0, is_last};
}

// start(first sequence, first chunk, chunks, bounds) of as many as a grid has, but along x.
template <class Start>
void for_each_chunk_launch(const int32_t* cu_seqlens, int64_t sequences, const Start& start) {
  constexpr int64_t most_chunks = 65535;
  for_each_counted_launch(cu_seqlens, sequences, [&](int64_t first, const SequenceBounds& bounds) {
    const int64_t end = first_token_chunk(first + bounds.count, bounds.at[bounds.count]);
    for (int64_t from = first_token_chunk(first, bounds.at[0]); from < end; from += most_chunks)
      start(first, from, end - from < most_chunks ? end - from : most_chunks, bounds);
  });
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::column_pairs
