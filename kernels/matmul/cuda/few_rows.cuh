// The tiles of products of a few rows by a dense weight: a decode step's (dense.cu, few_rows.cu).
#pragma once

#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/mainloop.cuh"
#include "kernels/matmul/cuda/operand.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Sixteen rows at most: a decode step streams the weight at the memory's bandwidth with 42 KB in flight in each block.
using DecodeRows = ProductShape<16, 32, 16, 8, 8, 3>;
// The same for a weight of few rows, where tiles of 32 columns leave multiprocessors without work: on an H100 64 blocks
// reached 727 GB/s, 16 blocks 173, 256 blocks 2184. A warp to a block, which waits for nobody, with 15 KB of the weight
// in flight; its chain of products, not memory, is then the floor: 4 products that wait for each other take some 130
// cycles for 64 units of k.
using DecodeColumns = ProductShape<16, 8, 16, 8, 16, 3>;

// Asks for the beginnings of a block's rows of a weight [count, k], while the kernels before are still under way: 2 KB
// of each, which is what memory delivers to all blocks in some 8 µs.
template <int rows, int threads, class T>
__device__ __forceinline__ void prefetch_rows(const DenseOperand<T>& weight, int64_t first, int64_t count, int64_t k) {
  const int thread = static_cast<int>(threadIdx.x) % threads;  // of those who have that weight
  constexpr int lines = 16, line_elements = 128 / static_cast<int>(sizeof(T));
  static_assert(rows * lines % threads == 0);
  LATHE_UNROLL
  for (int i = 0; i < rows * lines / threads; ++i) {
    const int index = i * threads + thread;
    const int64_t row = first + index / lines, column = int64_t{index % lines} * line_elements;
    if (row < count && column < k) prefetch_line(weight.data + row * weight.stride + column);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
