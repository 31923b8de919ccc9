// The kernels of products with weights in codes, for the ways in which codes lie (a Right of codes_block.cuh).
#pragma once

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/codes_multiply.cuh"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/few_rows.cuh"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/gated_epilogue.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

__device__ __forceinline__ int rows_of_block(int64_t rows, int64_t first_row) {
  return rows - first_row < codes_rows ? static_cast<int>(rows - first_row) : codes_rows;
}

// A block's sums go out by way of its memory: those of one weight, or, for finish_gated, of gate and up.
template <class T, class Right>
__device__ __forceinline__ void finish_codes(const CodesSums& sums, CodesMemory<T, Right, 1>& memory,
                                             const Epilogue<T>& epilogue, int first_row, int first_column) {
  using Block = CodesBlock<1>;
  using AllSums = SharedTile<float, codes_rows, codes_columns, Padded<32>>;
  static_assert(sizeof(AllSums) <= sizeof memory.decoded);
  AllSums& sums_of_all = *reinterpret_cast<AllSums*>(&memory);
  __syncthreads();  // all are done with the last stage
  if (Block::multiplies())
    for_each(sums, Block::first_column(),
             [&](int row, int column, float sum) { sums_of_all.elements[AllSums::offset(row, column)] = sum; });
  __syncthreads();  // the sums are there
  constexpr int eights = codes_columns / 8;
  const int row = static_cast<int>(threadIdx.x) / eights, column = static_cast<int>(threadIdx.x) % eights * 8;
  if (row >= codes_rows) return;
  finish_eight(epilogue, sums_of_all, row, column, first_row, first_column);
}
template <class T, class Right>
__device__ __forceinline__ const auto& gated_sums_of_block(const CodesSums& sums, CodesMemory<T, Right, 2>& memory) {
  using Block = CodesBlock<2>;
  using AllSums = GatedSums<codes_rows, codes_columns>;
  static_assert(sizeof(AllSums) <= sizeof memory.decoded);
  AllSums& all = *reinterpret_cast<AllSums*>(&memory);
  __syncthreads();  // all are done with the last stage
  if (Block::multiplies())
    for_each(sums, Block::weight() * codes_columns + Block::first_column(),
             [&](int row, int column, float sum) { all.elements[AllSums::offset(row, column)] = sum; });
  __syncthreads();  // the sums are there
  return all;
}

// ---- one weight, or several beside each other ----

template <class T, class Codes>
struct CodesProduct {
  DenseOperand<T> left, left2, right2;
  int64_t k, k2;
  Epilogue<T> epilogue;
  Codes codes;
};
// The tiles of several, beside each other in the grid.
template <class T, class Codes, int count>
struct CodesProducts {
  CodesProduct<T, Codes> of[count];
  unsigned end[count];  // of its tiles
};

template <class T>
struct CodesLoraStage {
  CodesLeftTile<T> left;
  CodesRightTile<T> right;
};

// sums += lora_t · lora_bᵀ: a stage or a few, one after another. By all threads of the block.
template <class T, class Codes>
__device__ __forceinline__ void multiply_lora(CodesSums& sums, const CodesProduct<T, Codes>& p,
                                              CodesLoraStage<T>& stage, int64_t first_row, int64_t first_column) {
  using Block = CodesBlock<1>;
  OperandReader<decltype(stage.left), Major::k, Block::multiplying> left;
  OperandReader<decltype(stage.right), Major::k, Block::multiplying> right;
  left.start(p.left2, first_row, p.epilogue.m, p.k2);
  right.start(p.right2, first_column, p.epilogue.n, p.k2);
  const AReader<decltype(stage.right), Major::k> weights(Block::multiplies() ? Block::first_column() : 0);
  const BReader<decltype(stage.left), Major::k> rows(0);
  const Pipeline<1> pipeline;
  const int steps = stages_along(p.k2);
  for (int step = 0; step < steps; ++step) {
    pipeline.advance(step, steps, [&](int) {
      if (!Block::multiplies()) return;
      left.read(stage.left);
      right.read(stage.right);
    });
    if (!Block::multiplies()) continue;
#pragma unroll 1
    for (int k_step = 0; k_step < block_k / 16; ++k_step) {
      AFragment<T> a;
      BFragment<T> b[2];
      weights.load(a, stage.right, 0, 16 * k_step);
      rows.load(b[0], b[1], stage.left, 0, 16 * k_step);
      mma(sums.at[0], a, b[0]);
      mma(sums.at[1], a, b[1]);
    }
  }
}

template <
    class T, class Right, int count,
    class Resources = BlockResources<CodesBlock<1>::threads, 1, static_cast<int>(sizeof(CodesMemory<T, Right, 1>))>>
__global__ void __launch_bounds__(Resources::threads, codes_blocks)
    codes_product_kernel(Resources, const __grid_constant__ CodesProducts<T, typename Right::Codes, count> all) {
  using Block = CodesBlock<1>;
  using Memory = CodesMemory<T, Right, 1>;
  Memory& memory = *dynamic_shared<Memory>();
  const DenseOperand<T>& left = all.of[0].left;  // of all
  const int64_t k = all.of[0].k;
  int index = 0;
  unsigned before = 0;
  while (index + 1 < count && blockIdx.y >= all.end[index]) before = all.end[index++];
  const CodesProduct<T, typename Right::Codes>& p = all.of[index];
  const int first_row = static_cast<int>(blockIdx.x) * codes_rows,
            first_column = static_cast<int>(blockIdx.y - before) * codes_columns;
  launch_dependents();
  CodesSums sums;
  if (Block::multiplies()) {
    grid_dependency_wait();
    multiply_codes(sums, left, RowsFrom{first_row}, rows_of_block(all.of[0].epilogue.m, first_row), k, memory);
  } else {
    const TeamThread thread = TeamThread::of_block<1>();
    Right right(p.codes, p.codes, memory.right[0], thread, first_column, p.epilogue.n, k);
    right.prefetch();
    grid_dependency_wait();
    decode_codes(right, thread, k, memory);
  }
  static_assert(sizeof(CodesLoraStage<T>) <= sizeof memory.decoded);
  multiply_lora(sums, p, *reinterpret_cast<CodesLoraStage<T>*>(&memory), first_row, first_column);
  finish_codes(sums, memory, p.epilogue, first_row, first_column);
}

template <class T, class Codes>
CodesProduct<T, Codes> codes_product(const ProductArgs& product, const Codes& codes) {
  return {dense_operand<T>(product.left),
          dense_operand<T>(product.left2),
          dense_operand<T>(product.right2),
          product.k,
          product.k2,
          epilogue_of<T>(product),
          codes};
}

template <class T, class Right, int count>
void start_codes_products(const char* name, CodesProducts<T, typename Right::Codes, count> all) {
  unsigned tiles = 0;
  for (int i = 0; i < count; ++i)
    all.end[i] = tiles += static_cast<unsigned>((all.of[i].epilogue.n + codes_columns - 1) / codes_columns);
  const auto rows = static_cast<unsigned>((all.of[0].epilogue.m + codes_rows - 1) / codes_rows);
  if (tiles > 0) launch_dependent(name, dim3(rows, tiles), codes_product_kernel<T, Right, count>, all);
}

// ---- gate and up, whose activated product goes out alone ----

template <class T, class Codes>
struct GatedCodes {
  DenseOperand<T> left;
  int64_t k;
  Codes codes[2];  // gate, up
  Activation activation;
  GatedEpilogue<T> epilogue;
};

// A block has the same 32 columns of both weights.
template <
    class T, class Right,
    class Resources = BlockResources<CodesBlock<2>::threads, 1, static_cast<int>(sizeof(CodesMemory<T, Right, 2>))>>
__global__ void __launch_bounds__(Resources::threads, codes_blocks)
    gated_codes_kernel(Resources, const __grid_constant__ GatedCodes<T, typename Right::Codes> p) {
  using Block = CodesBlock<2>;
  using Memory = CodesMemory<T, Right, 2>;
  Memory& memory = *dynamic_shared<Memory>();
  const GatedEpilogue<T>& e = p.epilogue;
  const int first_row = static_cast<int>(blockIdx.x) * codes_rows,
            first_column = static_cast<int>(blockIdx.y) * codes_columns;
  launch_dependents();
  CodesSums sums;
  if (Block::multiplies()) {
    grid_dependency_wait();
    multiply_codes(sums, p.left, RowsFrom{first_row}, rows_of_block(e.m, first_row), p.k, memory);
  } else {
    const TeamThread thread = TeamThread::of_block<2>();
    const auto& codes = p.codes[thread.weight];
    Right right(codes, codes, memory.right[thread.weight], thread, first_column, e.n, p.k);
    right.prefetch();
    grid_dependency_wait();
    decode_codes(right, thread, p.k, memory);
  }
  const auto& all = gated_sums_of_block(sums, memory);
  p.activation == Activation::silu
      ? finish_gated<T, Silu, codes_rows, codes_columns>(e, all, first_row, first_column)
      : finish_gated<T, GeluTanh, codes_rows, codes_columns>(e, all, first_row, first_column);
}

template <class T, class Right>
void start_gated_codes(const char* name, const ProductArgs& product, const GatedResult& result,
                       const typename Right::Codes& gate, const typename Right::Codes& up) {
  const GatedCodes<T, typename Right::Codes> p{dense_operand<T>(product.left),
                                               product.k,
                                               {gate, up},
                                               result.activation,
                                               gated_epilogue<T>(product.m, product.n, result.out)};
  const auto count = [](int64_t all, int of_tile) { return static_cast<unsigned>((all + of_tile - 1) / of_tile); };
  const dim3 grid(count(product.m, codes_rows), count(product.n, codes_columns));
  if (product.n > 0) launch_dependent(name, grid, gated_codes_kernel<T, Right>, p);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
