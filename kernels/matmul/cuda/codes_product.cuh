// A few rows times weights in codes, which are read once: a lane decodes those of its own fragments, in registers, a
// stage before they are multiplied. (Decoded into a tile in shared memory for all, and read from there by ldmatrix,
// with 8 KB of codes in flight in a block, a row of nf4 reached 324 GB/s on an H100, of int8 580.) Sums are added in
// the very steps of mainloop.cuh: the bits are those of the product with the dequantised weight.
//
// That order is one chain along k, in which a step of sixteen waits for the one before: 5 µs at K = 4096, however fast
// the memory is (256 steps of some 33 cycles each, reckoned, not timed).
//
// A block has sixteen rows of x. Those with the next sixteen run beside it and find its codes in the last cache.
// On paper, of Q4_0 on an H100: a block's instructions let a multiprocessor decode 20 weights a cycle; dequantised into
// workspace and read from there they come at 3.2, which four blocks that decode the same codes still pass, at 5.
//
// How codes lie and become numbers is the business of a Right, an object of each thread:
//   Codes                  the weight as a kernel's argument
//   stages, Memory         how many steps of codes are in hand or on their way, and where, in shared memory
//   Right(codes, memory, first_column, columns, k)   of a block's 32 columns, of so many that there are
//   prefetch()             asks for their beginnings
//   copy(stage)            starts the copies of the next step's codes
//   begin()                what decoding needs beside them; a barrier follows
//   decode(weights, step, stage)   this thread's weights of a step, rounded to T: of a column of the warp's, of every
//                          eight along k the pair of its quarter; step after step
//   advance(step)          after decode(…, step + 1, …)
// It belongs to a group of 128 threads, the block or half of it (tile_thread()).
#pragma once

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/few_rows.cuh"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/gated_epilogue.cuh"
#include "kernels/matmul/cuda/operand.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

using CodesShape = ProductShape<16, 32, 16, 8, 1, 2>;  // the stages are Right's
template <class T>
using CodesLeftTile = OperandTile<T, CodesShape::m, Major::k>;
template <class T>
using CodesLoraStage = Stage<CodesShape, T, Major::k, Major::k>;

// A thread's place in the group that has a weight's tile.
__device__ __forceinline__ int tile_thread() { return static_cast<int>(threadIdx.x) % CodesShape::threads; }

inline constexpr int threads_of_column = CodesShape::threads / CodesShape::n;
static_assert(threads_of_column == 4, "as a fragment of the right operand has them");

// A warp's right operand of a stage: of its eight columns, of sixteen along k each.
template <class T>
struct WeightFragments {
  BFragment<T> at[block_k / 16];
};

template <class T, class Right>
struct CodesMemory {
  CodesLeftTile<T> left[Right::stages];
  alignas(16) typename Right::Memory right;
  CodesLoraStage<T> lora;
};

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

// The rows of x on their way into the stages: a thread of the block's first group has one vector of each tile. Those of
// rows that there are not are zeros from the beginning, and are not copied.
template <class T>
class CodesLeft {
  using Tile = CodesLeftTile<T>;
  static_assert(CodesShape::threads == CodesShape::m * Tile::vectors);

 public:
  // x's rows are aligned, and k is a multiple of eight. A barrier follows.
  __device__ __forceinline__ CodesLeft(const DenseOperand<T>& x, int64_t first_row, int64_t rows, int64_t k,
                                       Tile* tiles, int stages)
      : tiles_(tiles) {
    const int row = static_cast<int>(threadIdx.x) / Tile::vectors,
              column = static_cast<int>(threadIdx.x) % Tile::vectors * vector_elements<T>;
    place_ = Tile::offset(row, column);
    const bool has_one = row < CodesShape::m;
    there_ = has_one && first_row + row < rows;
    next_ = x.data + (there_ ? (first_row + row) * x.stride : 0) + column;
    left_ = static_cast<int>(k) - column;
    if (there_ || !has_one) return;
    for (int i = 0; i < stages; ++i) store_vector<uint4>(tiles_[i].elements + place_, uint4{});
  }
  // Starts the copies of the next step.
  __device__ __forceinline__ void copy(int stage) {
    if (there_) cp_async_16(tiles_[stage].elements + place_, next_, left_ > 0 ? 16 : 0);
    next_ += block_k;
    left_ -= block_k;
  }

 private:
  Tile* tiles_;
  const T* next_;
  int place_, left_;
  bool there_;
};

template <class T>
__device__ __forceinline__ void add_step(CodesShape::Sums& sums, const AReader<CodesLeftTile<T>, Major::k>& reader,
                                         const CodesLeftTile<T>& left, const WeightFragments<T>& weights) {
  LATHE_UNROLL
  for (int step = 0; step < block_k / 16; ++step) {
    AFragment<T> rows;
    reader.load(rows, left, 0, 16 * step);
    mma(sums.at[0][0], rows, weights.at[step]);
  }
}

// sums += x · weightᵀ: while a step is multiplied the next one is decoded, and the others are on their way.
template <class T, class Right>
__device__ __forceinline__ void multiply_codes(CodesShape::Sums& sums, const DenseOperand<T>& x, int64_t first_row,
                                               int64_t rows, int64_t k, CodesLeftTile<T> (&tiles)[Right::stages],
                                               Right& right) {
  constexpr int stages = Right::stages;
  CodesLeft<T> left(x, first_row, rows, k, tiles, stages);
  const int steps = stages_along(k);
  int filling = 0;  // the stage of the next step to be filled
  const auto fill = [&](int) {
    left.copy(filling);
    right.copy(filling);
    filling = filling + 1 == stages ? 0 : filling + 1;
  };
  const Pipeline<stages> pipeline;
  pipeline.start(steps, fill);
  right.begin();
  pipeline.wait();  // for the first step's codes
  WeightFragments<T> weights;
  right.decode(weights, 0, 0);
  const AReader<CodesLeftTile<T>, Major::k> reader(0);
  int reading = 0;
#pragma unroll 2  // the two sets of fragments change places
  for (int step = 0; step + 1 < steps; ++step) {
    pipeline.template wait<1>();  // for the next step, too
    pipeline.fill_ahead(step, steps, fill);
    const int after = reading + 1 == stages ? 0 : reading + 1;
    WeightFragments<T> next;
    right.decode(next, step + 1, after);
    right.advance(step);
    add_step(sums, reader, tiles[reading], weights);
    weights = next;
    reading = after;
  }
  add_step(sums, reader, tiles[reading], weights);
}

// sums += lora_t · lora_bᵀ: a stage or a few, one after another.
template <class T, class Codes>
__device__ __forceinline__ void multiply_lora(CodesShape::Sums& sums, const CodesProduct<T, Codes>& p,
                                              CodesLoraStage<T>& stage, int64_t first_row, int64_t first_column) {
  OperandReader<decltype(stage.left), Major::k, CodesShape::threads> left;
  OperandReader<decltype(stage.right), Major::k, CodesShape::threads> right;
  left.start(p.left2, first_row, p.epilogue.m, p.k2);
  right.start(p.right2, first_column, p.epilogue.n, p.k2);
  WarpProduct<CodesLoraStage<T>> product;
  const Pipeline<1> pipeline;
  const int steps = stages_along(p.k2);
  for (int step = 0; step < steps; ++step) {
    pipeline.advance(step, steps, [&](int) {
      left.read(stage.left);
      right.read(stage.right);
    });
    product.load(stage, 0);
    LATHE_UNROLL
    for (int k_step = 0; k_step < product.steps; ++k_step) {
      if (k_step + 1 < product.steps) product.load(stage, k_step + 1);
      product.multiply(sums, k_step);
    }
  }
}

template <class T, class Right, int count,
          class Resources =
              BlockResources<CodesShape::threads, CodesShape::blocks, static_cast<int>(sizeof(CodesMemory<T, Right>))>>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    codes_product_kernel(Resources, const __grid_constant__ CodesProducts<T, typename Right::Codes, count> all) {
  auto& memory = *dynamic_shared<CodesMemory<T, Right>>();
  int index = 0;
  unsigned before = 0;
  while (index + 1 < count && blockIdx.y >= all.end[index]) before = all.end[index++];
  const CodesProduct<T, typename Right::Codes>& p = all.of[index];
  const int64_t first_row = int64_t{blockIdx.x} * CodesShape::m,
                first_column = int64_t{blockIdx.y - before} * CodesShape::n;
  launch_dependents();
  Right right(p.codes, memory.right, first_column, p.epilogue.n, p.k);
  right.prefetch();
  grid_dependency_wait();
  CodesShape::Sums sums;
  multiply_codes(sums, p.left, first_row, p.epilogue.m, p.k, memory.left, right);
  multiply_lora(sums, p, memory.lora, first_row, first_column);
  finish_tile<CodesShape>(p.epilogue, sums, &memory, first_row, first_column);
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
    all.end[i] = tiles += static_cast<unsigned>((all.of[i].epilogue.n + CodesShape::n - 1) / CodesShape::n);
  const auto rows = static_cast<unsigned>((all.of[0].epilogue.m + CodesShape::m - 1) / CodesShape::m);
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

// The two groups of a block share the rows of x.
template <class T, class Right>
struct GatedCodesMemory {
  CodesLeftTile<T> left[Right::stages];
  alignas(16) typename Right::Memory right[2];
};

// A block has the same 32 columns of both weights, a group of threads each, and one place for x where two blocks have
// two: a multiprocessor of an H100 has room for three, six tiles of a weight with 16 KB of codes in flight each, in
// place of three with 20.
template <
    class T, class Right,
    class Resources = BlockResources<2 * CodesShape::threads, 2, static_cast<int>(sizeof(GatedCodesMemory<T, Right>))>>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    gated_codes_kernel(Resources, const __grid_constant__ GatedCodes<T, typename Right::Codes> p) {
  using Memory = GatedCodesMemory<T, Right>;
  Memory& memory = *dynamic_shared<Memory>();
  const int group = static_cast<int>(threadIdx.x) / CodesShape::threads;
  const GatedEpilogue<T>& e = p.epilogue;
  const int64_t first_row = int64_t{blockIdx.x} * CodesShape::m, first_column = int64_t{blockIdx.y} * CodesShape::n;
  launch_dependents();
  Right right(p.codes[group], memory.right[group], first_column, e.n, p.k);
  right.prefetch();
  grid_dependency_wait();
  CodesShape::Sums sums;
  multiply_codes(sums, p.left, first_row, e.m, p.k, memory.left, right);
  using AllSums = GatedSums<CodesShape::m, CodesShape::n>;
  static_assert(sizeof(AllSums) <= sizeof(Memory));
  AllSums& all = *reinterpret_cast<AllSums*>(&memory);
  __syncthreads();  // all are done with the last stage
  store_fragments(sums, all, 0, static_cast<int>(threadIdx.x) / 32 * 8);
  __syncthreads();  // the sums are there
  p.activation == Activation::silu
      ? finish_gated<T, Silu, CodesShape::m, CodesShape::n>(e, all, first_row, first_column)
      : finish_gated<T, GeluTanh, CodesShape::m, CodesShape::n>(e, all, first_row, first_column);
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
  const dim3 grid(count(product.m, CodesShape::m), count(product.n, CodesShape::n));
  if (product.n > 0) launch_dependent(name, grid, gated_codes_kernel<T, Right>, p);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
