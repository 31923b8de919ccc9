// out = x · weightᵀ (+ lora_t · lora_bᵀ) (+ bias) (+ residual). Every element is one chain along k, then along the LoRA rank, in
// one order of instructions, whatever M is: a row's bits do not depend on the batch.
//
// bf16: 128 × 128 tiles on the tensor cores (mma.sync), operands through a four-stage cp.async pipeline. A tile along k is 32
// wide: 64-byte rows of four 16-byte pieces, whose places are swapped so that the eight rows that ldmatrix reads at once lie
// in eight different bank groups.
// f32: 64 × 64 tiles of fused multiply-adds, ascending in k: the bits of the CPU's bodies.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row.h"
#include "kernels/matmul/cuda.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// One pair of operands: left [m, k], right [n, k], both with k fastest.
template <class T>
struct Pair {
  const T* left;
  int64_t left_stride;
  const T* right;
  int64_t right_stride;
  int64_t k;
};

template <class T>
struct Product {
  int64_t m, n;
  Pair<T> pairs[2];  // the weight, then LoRA (k = 0: none)
  MatrixCuda bias, residual, out;
};

template <class T>
__device__ __forceinline__ float read(const MatrixCuda& matrix, int64_t row, int64_t column) {
  const int64_t i = row * matrix.stride + column;
  return matrix.dtype == DType::f32 ? static_cast<const float*>(matrix.data)[i] : to_float(static_cast<const T*>(matrix.data)[i]);
}

// The one rounding.
template <class T>
__device__ __forceinline__ void finish(const Product<T>& p, int64_t row, int64_t column, float value) {
  if (row >= p.m || column >= p.n) return;
  if (p.bias.data != nullptr) value += read<T>(p.bias, 0, column);
  if (p.residual.data != nullptr) value += read<T>(p.residual, row, column);
  const int64_t i = row * p.out.stride + column;
  if (p.out.dtype == DType::f32) {
    static_cast<float*>(p.out.data)[i] = value;
  } else {
    static_cast<T*>(p.out.data)[i] = from_float<T>(value);
  }
}

// ---- bf16 ----

constexpr int tile_m = 128, tile_n = 128, tile_k = 32;
constexpr int stages = 4;
constexpr int threads = 256;                // 2 × 4 warps, each with 64 × 32 of the tile: 64 accumulators in a thread
constexpr int piece = 8;                    // bf16 in 16 bytes
constexpr int pieces = tile_k / piece;      // in a row of a tile
constexpr int tile_elements = 128 * tile_k;  // of either operand
constexpr int stage_elements = 2 * tile_elements;
constexpr int pipeline_bytes = stages * stage_elements * 2;
static_assert(tile_m == tile_n, "both operands are loaded by one function");

// Where a piece of a tile's row lies: two rows share 128 bytes, so rows 2i and 2i + 1 use the same swap.
__device__ __forceinline__ int place(int row, int column) { return row * tile_k + ((column ^ (row / 2)) % pieces) * piece; }

// A 128 × 32 tile of an operand; what lies outside it is zero. Without 16-byte alignment the elements come one by one.
template <bool aligned>
__device__ __forceinline__ void load_tile(bf16_t* tile, const bf16_t* operand, int64_t stride, int64_t first_row, int64_t rows,
                                          int64_t first_k, int64_t k) {
  LATHE_UNROLL
  for (int i = 0; i < 128 * pieces / threads; ++i) {
    const int index = static_cast<int>(threadIdx.x) + i * threads;
    const int row = index / pieces, column = index % pieces;
    const int64_t at_row = first_row + row, at_k = first_k + column * piece;
    const int64_t left = at_row < rows ? k - at_k : 0;
    const int count = left < 0 ? 0 : left > piece ? piece : static_cast<int>(left);
    const bf16_t* source = operand + (count > 0 ? at_row * stride + at_k : 0);
    bf16_t* target = tile + place(row, column);
    if (aligned) {
      cp_async_16(target, source, count * 2);
    } else {
      GroupBits<bf16_t> bits;
      LATHE_UNROLL
      for (int j = 0; j < piece; ++j) bits.elements[j] = j < count ? source[j] : from_float<bf16_t>(0.0f);
      store_vector<uint4>(target, bits.vectors[0]);
    }
  }
}

__device__ __forceinline__ int tiles_along(int64_t k) { return static_cast<int>((k + tile_k - 1) / tile_k); }

template <bool aligned>
__device__ __forceinline__ void load_stage(bf16_t* stage, const Product<bf16_t>& p, int step) {
  const int weight_steps = tiles_along(p.pairs[0].k);
  const Pair<bf16_t>& pair = step < weight_steps ? p.pairs[0] : p.pairs[1];
  const int64_t first_k = int64_t{step < weight_steps ? step : step - weight_steps} * tile_k;
  load_tile<aligned>(stage, pair.left, pair.left_stride, int64_t{blockIdx.y} * tile_m, p.m, first_k, pair.k);
  load_tile<aligned>(stage + tile_elements, pair.right, pair.right_stride, int64_t{blockIdx.x} * tile_n, p.n, first_k, pair.k);
}

// The warp's 64 × 32 part of the tile, one step of 32 along k.
__device__ __forceinline__ void multiply_stage(float (&sums)[4][4][4], const bf16_t* stage, int warp_m, int warp_n, int lane) {
  const bf16_t* left = stage;
  const bf16_t* right = stage + tile_elements;
  LATHE_UNROLL
  for (int half = 0; half < tile_k / 16; ++half) {
    uint32_t a[4][4], b[4][2];
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) {  // rows 0–7 and 8–15 of the first eight k, then of the second
      const int row = warp_m * 64 + i * 16 + lane % 16;
      ldmatrix_x4(a[i], left + place(row, 2 * half + lane / 16));
    }
    LATHE_UNROLL
    for (int j = 0; j < 2; ++j) {  // two column tiles at once: k 0–7 and 8–15 of one, then of the other
      const int row = warp_n * 32 + j * 16 + lane / 16 * 8 + lane % 8;
      uint32_t both[4];
      ldmatrix_x4(both, right + place(row, 2 * half + lane / 8 % 2));
      b[2 * j][0] = both[0], b[2 * j][1] = both[1];
      b[2 * j + 1][0] = both[2], b[2 * j + 1][1] = both[3];
    }
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < 4; ++j) mma_m16n8k16_bf16(sums[i][j], a[i], b[j]);
    }
  }
}

template <bool aligned>
__global__ void __launch_bounds__(threads, 2) linear_bf16_kernel(Product<bf16_t> p) {
  bf16_t* pipeline = dynamic_shared<bf16_t>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_m = warp / 4, warp_n = warp % 4;
  const int steps = tiles_along(p.pairs[0].k) + tiles_along(p.pairs[1].k);

  float sums[4][4][4] = {};
  for (int step = 0; step < stages - 1; ++step) {
    if (step < steps) load_stage<aligned>(pipeline + step * stage_elements, p, step);
    cp_async_commit();  // one group for each step, empty at the end, so that the wait can count
  }
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<stages - 2>();
    __syncthreads();  // this step's tiles are there for all, and all are done with the previous step's
    const int ahead = step + stages - 1;
    if (ahead < steps) load_stage<aligned>(pipeline + ahead % stages * stage_elements, p, ahead);
    cp_async_commit();
    multiply_stage(sums, pipeline + step % stages * stage_elements, warp_m, warp_n, lane);
  }

  LATHE_UNROLL
  for (int i = 0; i < 4; ++i) {
    LATHE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t row = int64_t{blockIdx.y} * tile_m + warp_m * 64 + i * 16 + lane / 4;
      const int64_t column = int64_t{blockIdx.x} * tile_n + warp_n * 32 + j * 8 + lane % 4 * 2;
      finish(p, row, column, sums[i][j][0]);
      finish(p, row, column + 1, sums[i][j][1]);
      finish(p, row + 8, column, sums[i][j][2]);
      finish(p, row + 8, column + 1, sums[i][j][3]);
    }
  }
}

// ---- f32 ----

constexpr int plain_tile = 64, plain_k = 16;
constexpr int plain_threads = 256;  // 16 × 16, each with a 4 × 4 part of the tile

__global__ void __launch_bounds__(plain_threads) linear_f32_kernel(Product<float> p) {
  struct Tiles {
    float left[plain_k][plain_tile + 1];  // one more, so that a column written by a warp is in different banks
    float right[plain_k][plain_tile + 1];
  };
  Tiles& tiles = block_shared<Tiles>();
  const int column_of_threads = threadIdx.x % 16, row_of_threads = threadIdx.x / 16;
  const int64_t first_row = int64_t{blockIdx.y} * plain_tile, first_column = int64_t{blockIdx.x} * plain_tile;

  float sums[4][4] = {};
  for (int pair = 0; pair < 2; ++pair) {
    const Pair<float>& operands = p.pairs[pair];
    for (int64_t first_k = 0; first_k < operands.k; first_k += plain_k) {
      for (int i = threadIdx.x; i < plain_tile * plain_k; i += plain_threads) {
        const int row = i / plain_k, k = i % plain_k;
        const bool there = first_k + k < operands.k;
        tiles.left[k][row] = there && first_row + row < p.m ? operands.left[(first_row + row) * operands.left_stride + first_k + k] : 0.0f;
        tiles.right[k][row] = there && first_column + row < p.n ? operands.right[(first_column + row) * operands.right_stride + first_k + k] : 0.0f;
      }
      __syncthreads();  // the tiles are there
      const int count = operands.k - first_k < plain_k ? static_cast<int>(operands.k - first_k) : plain_k;
      for (int k = 0; k < count; ++k) {
        LATHE_UNROLL
        for (int i = 0; i < 4; ++i) {
          LATHE_UNROLL
          for (int j = 0; j < 4; ++j)
            sums[i][j] = fmaf(tiles.left[k][row_of_threads * 4 + i], tiles.right[k][column_of_threads + 16 * j], sums[i][j]);
        }
      }
      __syncthreads();  // and have been read
    }
  }
  LATHE_UNROLL
  for (int i = 0; i < 4; ++i) {
    LATHE_UNROLL
    for (int j = 0; j < 4; ++j) finish(p, first_row + row_of_threads * 4 + i, first_column + column_of_threads + 16 * j, sums[i][j]);
  }
}

template <class T>
Product<T> product_of(const LinearForwardCuda& args) {
  const auto pair = [](const MatrixCuda& left, const MatrixCuda& right, int64_t k) {
    return Pair<T>{static_cast<const T*>(left.data), left.stride, static_cast<const T*>(right.data), right.stride, k};
  };
  return {args.m, args.n, {pair(args.x, args.weight, args.k), pair(args.lora_t, args.lora_b, args.rank)}, args.bias, args.residual, args.out};
}

template <class T>
bool aligned(const Pair<T>& pair) {
  return pair.k == 0 || (rows_aligned(pair.left, pair.left_stride) && rows_aligned(pair.right, pair.right_stride));
}

dim3 grid_of(int64_t m, int64_t n, int tile) {
  return dim3(static_cast<unsigned>((n + tile - 1) / tile), static_cast<unsigned>((m + tile - 1) / tile));
}

}  // namespace

void linear_forward_tiles(const LinearForwardCuda& args) {
  if (args.x.dtype == DType::f32) {
    launch({.name = "linear_f32", .grid = grid_of(args.m, args.n, plain_tile), .block = dim3(plain_threads)}, linear_f32_kernel,
           product_of<float>(args));
    return;
  }
  const Product<bf16_t> p = product_of<bf16_t>(args);
  const LaunchConfig config{.name = "linear_bf16", .grid = grid_of(args.m, args.n, tile_m), .block = dim3(threads), .shared_bytes = pipeline_bytes};
  launch(config, aligned(p.pairs[0]) && aligned(p.pairs[1]) ? linear_bf16_kernel<true> : linear_bf16_kernel<false>, p);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
