// Products of f32 matrices: 64 × 64 tiles of fused multiply-adds in the very order of the CPU's bodies, chains of 512
// along k that are added in order, so that the bits are those of a CPU with fused multiply-adds.
//
// A thread has 4 × 4 of the tile: two 16-byte reads of shared memory for 16 multiply-adds. The next tiles are on their
// way from memory in registers meanwhile, and go into the other half of shared memory: one barrier for each step.
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/tile/shared_tile.cuh"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/tile_order.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int tile = 64, tile_k = 16;
struct Shape {
  static constexpr int m = tile, n = tile;
};
constexpr int threads = 256;  // 16 × 16
static_assert(tile * tile_k == threads * 4, "each thread moves four elements of each operand");
constexpr int chain_steps = 512 / tile_k;  // gemm::k_block_steps

// An operand's part of a step, its 64 rows (or columns of the product) beside each other. Where a thread writes and
// reads it:
using OperandTile = PaddedTile<float, tile_k, tile>;
__host__ __device__ constexpr int across_k(int thread) { return OperandTile::offset(thread / 16, thread % 16 * 4); }
__host__ __device__ constexpr int along_k(int thread, int i) {
  return OperandTile::offset(thread % 4 * 4 + i, thread / 4);
}
__host__ __device__ constexpr int of_rows(int thread, int k) { return OperandTile::offset(k, thread / 16 * 4); }
__host__ __device__ constexpr int of_columns(int thread, int k) { return OperandTile::offset(k, thread % 16 * 4); }
static_assert(bank_passes(16, [](int lane) { return across_k(lane) * 4; }) == 1);
static_assert(bank_passes(4, [](int lane) { return along_k(lane, 0) * 4; }) == 2);
static_assert(bank_passes(16, [](int lane) { return of_rows(lane, 0) * 4; }) == 1);
static_assert(bank_passes(16, [](int lane) { return of_columns(lane, 0) * 4; }) == 1);

// Lines of the index that has neighbours in memory lie `stride` apart.
struct Operand {
  const float* data;
  int64_t stride;
  Major major;
};

struct Pair {
  Operand left, right;
  int64_t k;
};

struct Product {
  Pair pairs[2];
  Epilogue<float> epilogue;
};

struct Tiles {
  OperandTile left, right;
};

struct Four {
  float at[4];
};

// Four neighbours in memory, those beyond the operand zero.
__device__ __forceinline__ Four fetch(const Operand& operand, int64_t first_row, int64_t rows, int64_t first_k,
                                      int64_t k) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool k_major = operand.major == Major::k;
  const int64_t line = k_major ? first_row + thread / 4 : first_k + thread / 16;
  const int64_t element = k_major ? first_k + thread % 4 * 4 : first_row + thread % 16 * 4;
  const int64_t left = line < (k_major ? rows : k) ? (k_major ? k : rows) - element : 0;
  const float* from = operand.data + line * operand.stride + element;
  if (left >= 4 && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
    const float4 four = load_vector<float4>(from);
    return {four.x, four.y, four.z, four.w};
  }
  Four four = {};
  LATHE_UNROLL
  for (int i = 0; i < 4; ++i)
    if (i < left) four.at[i] = from[i];
  return four;
}

__device__ __forceinline__ void put(OperandTile& to, const Four& four, Major major) {
  const int thread = static_cast<int>(threadIdx.x);
  if (major == Major::k) {
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) to.elements[along_k(thread, i)] = four.at[i];
  } else {
    store_vector(to.elements + across_k(thread), float4{four.at[0], four.at[1], four.at[2], four.at[3]});
  }
}

struct Sums {
  float at[4][4] = {};
};

// sums += the first `count` of k of a tile.
__device__ __forceinline__ void multiply(Sums& sums, const Tiles& tiles, int count) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int k = 0; k < count; ++k) {
    const float4 left = load_vector<float4>(tiles.left.elements + of_rows(thread, k));
    const float4 right = load_vector<float4>(tiles.right.elements + of_columns(thread, k));
    const float a[4] = {left.x, left.y, left.z, left.w}, b[4] = {right.x, right.y, right.z, right.w};
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < 4; ++j) sums.at[i][j] = fmaf(a[i], b[j], sums.at[i][j]);
    }
  }
}

__device__ __forceinline__ int steps_along(int64_t k) { return static_cast<int>((k + tile_k - 1) / tile_k); }

// The sums of a tile over both pairs.
__device__ __forceinline__ Sums multiply_tiles(const Product& p, int64_t first_row, int64_t first_column) {
  struct Halves {
    Tiles at[2];
  };
  Halves& halves = block_shared<Halves>();
  const int first_steps = steps_along(p.pairs[0].k), steps = first_steps + steps_along(p.pairs[1].k);
  const bool has_rows = first_row + threadIdx.x / 16 * 4 < p.epilogue.m;  // decode: most threads have none
  const Major left_major = p.pairs[0].left.major, right_major = p.pairs[0].right.major;
  Four left, right;
  const auto fetch_step = [&](int step) {
    Pair pair = p.pairs[0];  // by value: a reference to one or the other would keep both in memory
    if (step >= first_steps) pair = p.pairs[1];
    const int64_t first_k = int64_t{step < first_steps ? step : step - first_steps} * tile_k;
    left = fetch(pair.left, first_row, p.epilogue.m, first_k, pair.k);
    right = fetch(pair.right, first_column, p.epilogue.n, first_k, pair.k);
  };
  Sums sums, totals;
  bool began = false;  // the first chain is not added to zero, which would lose a negative one
  const auto close_chain = [&] {
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < 4; ++j) totals.at[i][j] = began ? totals.at[i][j] + sums.at[i][j] : sums.at[i][j];
    }
    sums = {};
    began = true;
  };
  if (steps > 0) fetch_step(0);
  for (int step = 0; step < steps; ++step) {
    Tiles& tiles = halves.at[step % 2];
    put(tiles.left, left, left_major);
    put(tiles.right, right, right_major);
    __syncthreads();  // the tiles are there, and all are done with the other half
    if (step + 1 < steps) fetch_step(step + 1);
    if (step > 0 && step < first_steps && step % chain_steps == 0) close_chain();
    const int64_t last = step < first_steps ? p.pairs[0].k - int64_t{step} * tile_k
                                            : p.pairs[1].k - int64_t{step - first_steps} * tile_k;
    if (has_rows) multiply(sums, tiles, last < tile_k ? static_cast<int>(last) : tile_k);
  }
  close_chain();
  return totals;
}

__device__ __forceinline__ void finish_tile(const Epilogue<float>& epilogue, const Sums& sums, int64_t first_row,
                                            int64_t first_column) {
  LATHE_UNROLL
  for (int i = 0; i < 4; ++i)
    finish(epilogue, first_row + threadIdx.x / 16 * 4 + i, first_column + threadIdx.x % 16 * 4, sums.at[i]);
}

using Resources = BlockResources<threads, 2, 0>;

__global__ void __launch_bounds__(Resources::threads, Resources::blocks) product_f32_kernel(Resources, Product p) {
  int64_t first_row, first_column;
  find_tile<Shape>(blockIdx.x, p.epilogue.m, p.epilogue.n, first_row, first_column);
  finish_tile(p.epilogue, multiply_tiles(p, first_row, first_column), first_row, first_column);
}

// The gradient of a weight: a sum for each sequence, added to the total that lies in out.
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    sequences_f32_kernel(Resources, Product p, SequenceBounds bounds) {
  int64_t first_row, first_column;
  find_tile<Shape>(blockIdx.x, p.epilogue.m, p.epilogue.n, first_row, first_column);
  for (int s = 0; s < bounds.count; ++s) {
    const int64_t begin = bounds.at[s];
    Product part = p;
    part.pairs[0].left.data += begin * p.pairs[0].left.stride;
    part.pairs[0].right.data += begin * p.pairs[0].right.stride;
    part.pairs[0].k = bounds.at[s + 1] - begin;
    if (part.pairs[0].k == 0) continue;
    const Sums sums = multiply_tiles(part, first_row, first_column);
    finish_tile(p.epilogue, sums, first_row, first_column);
    __syncthreads();  // all are done with the tiles before the next sequence fills them
  }
}

Product product_of(const ProductArgs& args) {
  const Major left = args.layout == ProductLayout::columns_plain ? Major::mn : Major::k;
  const Major right = args.layout == ProductLayout::rows_rows ? Major::k : Major::mn;
  const auto operand = [](const ProductMatrix& matrix, Major major) {
    return Operand{static_cast<const float*>(matrix.data), matrix.stride, major};
  };
  return {{{operand(args.left, left), operand(args.right, right), args.k},
           {operand(args.left2, left), operand(args.right2, right), args.k2}},
          epilogue_of<float>(args)};
}

void launch_product(const ProductArgs& args) {
  const dim3 grid(static_cast<unsigned>(count_tiles<Shape>(args.m, args.n)));
  const Product product = product_of(args);
  if (args.layout != ProductLayout::columns_plain) return launch("product_f32", grid, product_f32_kernel, product);
  for_each_launch(args.cu_seqlens, args.sequences, [&](const SequenceBounds& bounds) {
    launch("product_of_sequences_f32", grid, sequences_f32_kernel, product, bounds);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void product_tiles_f32(const ProductArgs& args) {
  LATHE_CUDA_NAMESPACE::launch_product(args);
}
template void product_tiles_f32<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&);

}  // namespace lathe::kernels
