// Indices of rows (kernels/arguments/indices.h) as kernels read them. Those on the host travel as kernel arguments (at
// most 4 KiB of them), as many to a launch as fit when each has only the bits that the largest needs: an operation
// copies nothing to the device, allocates nothing and waits for nothing. 8192 ids of 32 bits were eleven launches of
// embedding, whose beginnings and ends were a third of the time.
#pragma once

#include "kernels/arguments/indices.h"
#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int sent_words = 896;  // 3.5 KiB; the rest is for the operation's own arguments

// Of the rows of one launch, counted from its first: index i has the bits from bits · i on. The last word is read and
// not used.
struct SentIndices {
  uint32_t words[sent_words];
  int bits;

  static constexpr int64_t most(int bits) { return int64_t{sent_words - 1} * 32 / bits; }

  __device__ __forceinline__ int32_t operator[](int64_t row) const {
    const int first = static_cast<int>(row) * bits;
    const uint64_t two = uint64_t{words[first / 32 + 1]} << 32 | words[first / 32];
    return static_cast<int32_t>(two >> first % 32 & ((uint64_t{1} << bits) - 1));
  }
};
struct StoredIndices {
  const int32_t* data;
  __device__ __forceinline__ int32_t operator[](int64_t row) const { return data[row]; }
};

// The indices [first, first + count), none negative.
inline SentIndices sent_indices(const int32_t* first, int64_t count, int bits) {
  SentIndices sent{.words = {}, .bits = bits};
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = i * bits;
    const uint64_t placed = uint64_t{static_cast<uint32_t>(first[i])} << at % 32;
    sent.words[at / 32] |= static_cast<uint32_t>(placed);
    sent.words[at / 32 + 1] |= static_cast<uint32_t>(placed >> 32);
  }
  return sent;
}

// Calls start(indices, first, count) for all rows: in one piece where the indices are stored, else as many as can be
// sent.
template <class Start>
void for_each_launch(const Indices& indices, int64_t rows, const Start& start) {
  if (!indices.on_host) return start(StoredIndices{indices.data}, int64_t{0}, rows);
  int32_t largest = 1;
  for (int64_t i = 0; i < rows; ++i) largest = indices.data[i] > largest ? indices.data[i] : largest;
  int bits = 1;
  while (largest >> bits != 0) ++bits;
  for (int64_t first = 0; first < rows; first += SentIndices::most(bits)) {
    const int64_t count = rows - first < SentIndices::most(bits) ? rows - first : SentIndices::most(bits);
    start(sent_indices(indices.data + first, count, bits), first, count);
  }
}

// Positions, which mostly count on from row to row: each run of such rows by where it begins and with what. A training
// step's tokens are a few runs, one launch where packed into bits they were two or three; of a decode step each is one.
struct SentRuns {
  static constexpr int most = sent_words / 2;
  int32_t rows[most], values[most];
  int count;

  __device__ __forceinline__ int32_t operator[](int64_t row) const {
    int run = 0;
    for (int after = count; after - run > 1;) {
      const int middle = (run + after) / 2;
      rows[middle] <= row ? run = middle : after = middle;
    }
    return values[run] + static_cast<int32_t>(row) - rows[run];
  }
};

// As for_each_launch(), of positions.
template <class Start>
void for_each_launch_of_positions(const Indices& positions, int64_t rows, const Start& start) {
  if (!positions.on_host) return start(StoredIndices{positions.data}, int64_t{0}, rows);
  SentRuns runs{.rows = {}, .values = {}, .count = 0};
  int64_t first = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (row > first && positions.data[row] == positions.data[row - 1] + 1) continue;
    if (runs.count == SentRuns::most) {
      start(runs, first, row - first);
      first = row, runs.count = 0;
    }
    runs.rows[runs.count] = static_cast<int32_t>(row - first), runs.values[runs.count++] = positions.data[row];
  }
  if (runs.count > 0) start(runs, first, rows - first);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
