// Indices of rows (kernels/arguments/indices.h) as kernels read them. Those on the host travel as kernel arguments (at
// most 4 KiB of them), so many rows a launch: an operation copies nothing to the device, allocates nothing and waits
// for nothing.
#pragma once

#include "kernels/arguments/indices.h"
#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int indices_per_launch = 768;  // 3 KiB; the rest is for the operation's own arguments

// Of the rows of one launch, counted from its first.
struct SentIndices {
  int32_t at[indices_per_launch];
  __device__ __forceinline__ int32_t operator[](int64_t row) const { return at[row]; }
};
struct StoredIndices {
  const int32_t* data;
  __device__ __forceinline__ int32_t operator[](int64_t row) const { return data[row]; }
};

// Calls start(indices, first, count) for all rows: in one piece where the indices are stored, else as many as can be
// sent.
template <class Start>
void for_each_launch(const Indices& indices, int64_t rows, const Start& start) {
  if (!indices.on_host) return start(StoredIndices{indices.data}, int64_t{0}, rows);
  for (int64_t first = 0; first < rows; first += indices_per_launch) {
    const int64_t count = rows - first < indices_per_launch ? rows - first : indices_per_launch;
    SentIndices sent;
    for (int64_t i = 0; i < count; ++i) sent.at[i] = indices.data[first + i];
    start(sent, first, count);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
