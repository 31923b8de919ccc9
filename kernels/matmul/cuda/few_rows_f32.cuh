// What products of a few rows of f32 share, by a dense weight (few_rows_dense_f32.cu) or codes (few_rows_f32.cu): the
// very order of f32.cu, chains of 512 fused multiply-adds along k, added in order, here with many chains under way at a
// time. A lane has a column, and of it a chain.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/matmul/cuda/epilogue.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

struct F32Rows {
  const float* data;  // [m, k]
  int64_t stride;
};

struct FewRowsF32Call {
  F32Rows left, left2, right2;
  int64_t k, k2;
  Epilogue<float> epilogue;
};

inline FewRowsF32Call few_rows_f32_call(const ProductArgs& args) {
  const auto rows_of = [](const ProductMatrix& matrix) {
    return F32Rows{static_cast<const float*>(matrix.data), matrix.stride};
  };
  return {rows_of(args.left), rows_of(args.left2), rows_of(args.right2), args.k, args.k2, epilogue_of<float>(args)};
}

// Of a lane: its chain of each row.
template <int rows>
struct ChainSums {
  float at[rows] = {};
};

// sums += left[·, k] · weights[k], k ascending, of `there` weights from first_k on.
template <int rows, int count>
__device__ __forceinline__ void add_products(ChainSums<rows>& sums, const F32Rows& left, int64_t m, int64_t first_k,
                                             const float (&weights)[count], int there) {
  LATHE_UNROLL
  for (int r = 0; r < rows; ++r) {
    if (r >= m) break;
    const float* const from = left.data + r * left.stride + first_k;
    if (there >= count) {  // all loads are under way together
      LATHE_UNROLL
      for (int j = 0; j < count; ++j) sums.at[r] = fmaf(from[j], weights[j], sums.at[r]);
    } else {
      LATHE_UNROLL
      for (int j = 0; j < count; ++j)
        if (j < there) sums.at[r] = fmaf(from[j], weights[j], sums.at[r]);
    }
  }
}

// The second pair's terms go on with the last chain.
template <int rows>
__device__ __forceinline__ void add_second_pair(ChainSums<rows>& sums, const FewRowsF32Call& p, int64_t column) {
  constexpr int together = 8;
  const float* const from = p.right2.data + column * p.right2.stride;
  for (int64_t k = 0; k < p.k2; k += together) {
    const int there = p.k2 - k < together ? static_cast<int>(p.k2 - k) : together;
    float weights[together];
    LATHE_UNROLL
    for (int j = 0; j < together; ++j) weights[j] = column < p.epilogue.n && j < there ? from[k + j] : 0.0f;
    add_products(sums, p.left2, p.epilogue.m, k, weights, there);
  }
}

// A thread's elements of rows × columns of out: element `thread`, thread + threads, and so on.
template <int rows, int columns, int threads>
class ChainTotals {
 public:
  // The sums of chains [first, first + count), in order. The first is not added to zero, which would lose a negative
  // one.
  __device__ __forceinline__ void add(const float (*sums)[rows][columns], int64_t first, int count, int64_t m) {
    LATHE_UNROLL
    for (int i = 0; i < elements; ++i) {
      if (!is_mine(i, m)) continue;
      for (int c = 0; c < count; ++c) {
        const float sum = sums[c][row_of(i)][column_of(i)];
        totals_[i] = first + c == 0 ? sum : totals_[i] + sum;
      }
    }
  }

  __device__ __forceinline__ void finish(const Epilogue<float>& e, int64_t first_column) const {
    LATHE_UNROLL
    for (int i = 0; i < elements; ++i) {
      const int64_t row = row_of(i), column = first_column + column_of(i);
      if (!is_mine(i, e.m) || column >= e.n) continue;
      float value = totals_[i] * e.scale;
      if (e.bias.data != nullptr) value += at(e.bias, 0, column);
      if (e.residual.data != nullptr) value += at(e.residual, row, column);
      static_cast<float*>(e.out.data)[row * e.out.stride + column] = value;
    }
  }

 private:
  static constexpr int elements = (rows * columns + threads - 1) / threads;
  static __device__ __forceinline__ int element(int i) { return i * threads + static_cast<int>(threadIdx.x); }
  static __device__ __forceinline__ int row_of(int i) { return element(i) / columns; }
  static __device__ __forceinline__ int column_of(int i) { return element(i) % columns; }
  static __device__ __forceinline__ bool is_mine(int i, int64_t m) {
    return element(i) < rows * columns && row_of(i) < m;
  }
  static __device__ __forceinline__ float at(const ProductMatrix& matrix, int64_t row, int64_t column) {
    return static_cast<const float*>(matrix.data)[row * matrix.stride + column];
  }

  float totals_[elements] = {};
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
