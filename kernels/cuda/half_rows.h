// Elementwise work (elementwise.h) in which a thread has two groups: one of each half of a row. For kernels that do
// much for each thread beside its elements.
#pragma once

#include "kernels/cuda/elementwise.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// What launch_elementwise() takes for the columns: those of the first half, whole groups.
inline int64_t half_columns(int64_t columns) {
  return (columns + 2 * group_elements - 1) / (2 * group_elements) * group_elements;
}

// The thread's group of each half; none where its count is 0.
struct HalfRows {
  int64_t row;
  int64_t column[2];
  int count[2];
};
__device__ __forceinline__ HalfRows half_rows_of_thread(const Tiling& tiling, int64_t columns) {
  const auto [row, column, count] = elements_of_thread(tiling);
  const int64_t second = column + tiling.columns;
  return {row,
          {column, second},
          {count == 0 ? 0 : group_size(columns, column),
           count == 0 || second >= columns ? 0 : group_size(columns, second)}};
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
