// An operand's part of a stage as bulk copies bring it and wgmma reads it (sm_90a), 128 bytes to a line in the
// hardware's swizzle: 64 along k for each row, or, where the operand's rows are neighbours in memory, panels of 64 rows
// for each k.
#pragma once

#include "kernels/cuda/ptx/tensor_copy.h"
#include "kernels/cuda/ptx/wgmma.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int bulk_k = 64;  // of a stage

// `extent` rows of the operand (columns of the product for the right one) × bulk_k, by boxes of so many rows. Boxes of
// 64 rows are those of either major: one map of a matrix serves products along its rows and along its columns.
template <class T_, int extent_, Major major_, int box_ = major_ == Major::k ? extent_ : 64>
struct BulkOperand {
  using T = T_;
  static constexpr int extent = extent_, box = box_;
  static constexpr Major major = major_;
  static constexpr int panel = bulk_k * 64;  // elements
  static constexpr unsigned bytes = extent * bulk_k * sizeof(T);
  static_assert(extent % box == 0 && box % 64 == 0 && box <= 256, "a box has 256 lines at most");
  static_assert(major == Major::k || box == 64, "a line has 64 elements");

  alignas(1024) T elements[extent * bulk_k];

  // The map that copy() takes: of a matrix [count, k], or [k, count] with its rows as neighbours; or of several.
  static TensorMapArgs map_args(const T* data, int64_t stride, int64_t count, int64_t k, int64_t matrices = 0) {
    return {.data = data,
            .rows = major == Major::k ? count : k,
            .columns = major == Major::k ? k : count,
            .row_stride = stride,
            .box_rows = major == Major::k ? box : bulk_k,
            .box_columns = 64,
            .matrices = matrices};
  }

  // Rows from `first` and k from `k` on, zeros past the ends; `bytes` of them complete on the barrier.
  __device__ __forceinline__ void copy(const TensorMap& map, int first, int k, MBarrier& full) {
    LATHE_UNROLL
    for (int i = 0; i < extent; i += box) {
      const int line = major == Major::k ? first + i : k, column = major == Major::k ? k : first + i;
      tensor_copy(elements + i * bulk_k, map, line, column, full);
    }
  }
  // The same of one of several matrices, `count` rows, which become those from `to` on.
  template <int count = extent>
  __device__ __forceinline__ void copy_of(int matrix, const TensorMap& map, int first, int k, MBarrier& full,
                                          int to = 0) {
    static_assert(count % box == 0);
    LATHE_UNROLL
    for (int i = 0; i < count; i += box) {
      const int line = major == Major::k ? first + i : k, column = major == Major::k ? k : first + i;
      tensor_copy_of(matrix, elements + (to + i) * bulk_k, map, line, column, full);
    }
  }

  // Rows from `first` on, a multiple of 64.
  __device__ __forceinline__ WgmmaOperand<T, major> from_row(int first) const {
    return wgmma_operand<major>(elements + first * bulk_k, panel * static_cast<int>(sizeof(T)));
  }
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
