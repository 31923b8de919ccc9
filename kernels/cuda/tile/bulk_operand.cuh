// An operand's part of a stage as bulk copies bring it and wgmma reads it (sm_90a), 128 bytes to a line in the
// hardware's swizzle: 64 along k for each row, or, where the operand's rows are neighbours in memory, panels of 64 rows
// for each k.
#pragma once

#include "kernels/cuda/ptx/tensor_copy.h"
#include "kernels/cuda/ptx/wgmma.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int bulk_k = 64;  // of a stage

// `extent` rows of the operand (columns of the product for the right one) × bulk_k.
template <class T_, int extent_, Major major_>
struct BulkOperand {
  using T = T_;
  static constexpr int extent = extent_;
  static constexpr Major major = major_;
  static constexpr int panel = bulk_k * 64;  // elements
  static constexpr unsigned bytes = extent * bulk_k * sizeof(T);
  static_assert(extent % 64 == 0 && extent <= 256, "a box has 256 lines at most");

  alignas(1024) T elements[extent * bulk_k];

  // The map that copy() takes: of a matrix [count, k], or [k, count] with its rows as neighbours.
  static TensorMapArgs map_args(const T* data, int64_t stride, int64_t count, int64_t k) {
    return {.data = data,
            .rows = major == Major::k ? count : k,
            .columns = major == Major::k ? k : count,
            .row_stride = stride,
            .box_rows = major == Major::k ? extent : bulk_k,
            .box_columns = 64};
  }

  // Rows from `first` and k from `k` on, zeros past the ends; `bytes` of them complete on the barrier.
  __device__ __forceinline__ void copy(const TensorMap& map, int first, int k, MBarrier& full) {
    if constexpr (major == Major::k) {
      tensor_copy(elements, map, first, k, full);
    } else {
      LATHE_UNROLL
      for (int i = 0; i < extent / 64; ++i) tensor_copy(elements + i * panel, map, k, first + 64 * i, full);
    }
  }

  // Rows from `first` on, a multiple of 64.
  __device__ __forceinline__ WgmmaOperand<T, major> from_row(int first) const {
    return wgmma_operand<major>(elements + first * bulk_k, panel * static_cast<int>(sizeof(T)));
  }
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
