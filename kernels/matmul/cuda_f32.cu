// Products of f32 matrices: 64 × 64 tiles of fused multiply-adds in the very order of the CPU's bodies, chains of 512 along k
// that are added in order, so that the bits are those of a CPU with fused multiply-adds.
#include "kernels/cuda/launch.h"
#include "kernels/matmul/cuda_epilogue.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int tile = 64, tile_k = 16;
constexpr int threads = 256;    // 16 × 16, each with a 4 × 4 part of the tile
constexpr int64_t chain = 512;  // gemm::slab_units
static_assert(chain % tile_k == 0);

// Element (row, k) of an operand lies at row · row_stride + k · k_stride; one of them is 1.
struct Operand {
  const float* data;
  int64_t row_stride, k_stride;
};

struct Pair {
  Operand left, right;
  int64_t k;
};

struct Product {
  Pair pairs[2];
  Epilogue<float> epilogue;
};

// One row more, so that the neighbours along k that a warp stores lie in different banks.
using Tile = float[tile_k][tile + 1];

// Neighbouring threads read neighbours in memory.
__device__ __forceinline__ void load_tile(Tile& to, const Operand& operand, int64_t first_row, int64_t rows,
                                          int64_t first_k, int64_t k) {
  for (int i = threadIdx.x; i < tile * tile_k; i += threads) {
    const bool along_k = operand.k_stride == 1;
    const int row = along_k ? i / tile_k : i % tile, at = along_k ? i % tile_k : i / tile;
    const bool there = first_row + row < rows && first_k + at < k;
    to[at][row] =
        there ? operand.data[(first_row + row) * operand.row_stride + (first_k + at) * operand.k_stride] : 0.0f;
  }
}

// totals[0..3][0..3] = the sum over k [0, pair.k) of both pairs, for rows 4·(thread / 16) + i and columns thread % 16 + 16·j.
__device__ __forceinline__ void multiply(float (&totals)[4][4], const Product& p, int64_t first_row,
                                         int64_t first_column) {
  struct Tiles {
    Tile left, right;
  };
  Tiles& tiles = block_shared<Tiles>();
  const int column_of_threads = threadIdx.x % 16, row_of_threads = threadIdx.x / 16;
  float sums[4][4] = {};
  bool first = true;  // the first chain is not added to zero, which would lose a negative one
  const auto close_chain = [&] {
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < 4; ++j) {
        totals[i][j] = first ? sums[i][j] : totals[i][j] + sums[i][j];
        sums[i][j] = 0.0f;
      }
    }
    first = false;
  };
  for (int pair = 0; pair < 2; ++pair) {
    const Pair& operands = p.pairs[pair];
    for (int64_t first_k = 0; first_k < operands.k; first_k += tile_k) {
      if (pair == 0 && first_k > 0 && first_k % chain == 0) close_chain();
      load_tile(tiles.left, operands.left, first_row, p.epilogue.m, first_k, operands.k);
      load_tile(tiles.right, operands.right, first_column, p.epilogue.n, first_k, operands.k);
      __syncthreads();  // the tiles are there
      const int count = operands.k - first_k < tile_k ? static_cast<int>(operands.k - first_k) : tile_k;
      for (int k = 0; k < count; ++k) {
        LATHE_UNROLL
        for (int i = 0; i < 4; ++i) {
          LATHE_UNROLL
          for (int j = 0; j < 4; ++j)
            sums[i][j] =
                fmaf(tiles.left[k][row_of_threads * 4 + i], tiles.right[k][column_of_threads + 16 * j], sums[i][j]);
        }
      }
      __syncthreads();  // and have been read
    }
  }
  close_chain();
}

__device__ __forceinline__ void finish_tile(const Epilogue<float>& epilogue, const float (&totals)[4][4],
                                            int64_t first_row, int64_t first_column) {
  LATHE_UNROLL
  for (int i = 0; i < 4; ++i) {
    LATHE_UNROLL
    for (int j = 0; j < 4; ++j)
      finish_one(epilogue, first_row + threadIdx.x / 16 * 4 + i, first_column + threadIdx.x % 16 + 16 * j,
                 totals[i][j]);
  }
}

__global__ void __launch_bounds__(threads) product_f32_kernel(Product p) {
  const int64_t first_row = int64_t{blockIdx.y} * tile, first_column = int64_t{blockIdx.x} * tile;
  float totals[4][4];
  multiply(totals, p, first_row, first_column);
  finish_tile(p.epilogue, totals, first_row, first_column);
}

Product product_of(const ProductCuda& args) {
  const auto operand = [](const MatrixCuda& matrix, bool along_k) {
    return Operand{static_cast<const float*>(matrix.data), along_k ? matrix.stride : 1, along_k ? 1 : matrix.stride};
  };
  const bool left_along_k = args.layout != ProductLayout::columns_plain,
             right_along_k = args.layout == ProductLayout::rows_rows;
  return {{{operand(args.left, left_along_k), operand(args.right, right_along_k), args.k},
           {operand(args.left2, left_along_k), operand(args.right2, right_along_k), args.k2}},
          epilogue_of<float>(args)};
}

}  // namespace

void product_tiles_f32(const ProductCuda& args) {
  const LaunchConfig config{.name = "product_f32",
                            .grid = dim3(static_cast<unsigned>((args.n + tile - 1) / tile),
                                         static_cast<unsigned>((args.m + tile - 1) / tile)),
                            .block = dim3(threads)};
  Product p = product_of(args);
  if (args.cu_seqlens == nullptr) return launch(config, product_f32_kernel, p);
  for (int64_t s = 0; s < args.sequences; ++s) {
    const int64_t begin = args.cu_seqlens[s];
    Product part = p;
    part.pairs[0].left.data += begin * args.left.stride;
    part.pairs[0].right.data += begin * args.right.stride;
    part.pairs[0].k = args.cu_seqlens[s + 1] - begin;
    if (part.pairs[0].k > 0) launch(config, product_f32_kernel, part);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
