// The tiles of products of a few rows by a dense weight: a decode step's (dense.cu, few_rows.cu).
#pragma once

#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/gated_stage.cuh"
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

template <class Shape, class T>
using RowsStage = Stage<Shape, T, Major::k, Major::k>;

// A block's columns of the product of few rows, from first_column on. `start_left` starts an OperandReader of the left
// operand.
template <class Shape, class T, class StartLeft>
__device__ __forceinline__ void multiply_columns(const DenseOperand<T>& right, int64_t k, const Epilogue<T>& epilogue,
                                                 int64_t first_column, const StartLeft& start_left) {
  using Stage = RowsStage<Shape, T>;
  OperandReader<decltype(Stage::left), Major::k, Shape::threads> left;
  OperandReader<decltype(Stage::right), Major::k, Shape::threads> weight;
  start_left(left);
  weight.start(right, first_column, epilogue.n, k);
  Stage* const stages = dynamic_shared<Stage>();
  typename Shape::Sums sums;
  multiply_stages(sums, stages, stages_along(k), [&](int, Stage& stage) {
    left.read(stage.left);
    weight.read(stage.right);
  });
  finish_tile<Shape>(epilogue, sums, stages, 0, first_column);
}

// ---- gate and up, whose product goes out alone ----

// A block has sixteen columns of both.
inline constexpr int gated_columns = gated_columns_of<DecodeRows>;
template <class T>
using GatedStage = RowsStage<DecodeRows, T>;

template <class T, class Gate, class StartLeft>
__device__ __forceinline__ void multiply_gated_columns(const DenseOperand<T>& gate_rows, const DenseOperand<T>& up_rows,
                                                       int64_t k, const GatedEpilogue<T>& epilogue,
                                                       int64_t first_column, const StartLeft& start_left,
                                                       const GatedBias<T>& bias = {}) {
  OperandReader<decltype(GatedStage<T>::left), Major::k, DecodeRows::threads> left;
  OperandReader<GatedHalf<DecodeRows, T>, Major::k, DecodeRows::threads> gate, up;
  start_left(left);
  gate.start(gate_rows, first_column, epilogue.n, k);
  up.start(up_rows, first_column, epilogue.n, k);
  GatedStage<T>* const stages = dynamic_shared<GatedStage<T>>();
  DecodeRows::Sums sums;
  multiply_stages(sums, stages, stages_along(k), [&](int, GatedStage<T>& stage) {
    left.read(stage.left);
    gate.read(half_of<0, DecodeRows, T>(stage));
    up.read(half_of<1, DecodeRows, T>(stage));
  });
  const auto& all = gated_sums_of_tile<DecodeRows>(sums, stages);
  finish_gated<T, Gate, DecodeRows::m, gated_columns>(epilogue, all, 0, first_column, bias);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
