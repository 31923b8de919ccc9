// The main loop of the products on the tensor cores (bf16, f16): stages of both operands in shared memory, fragments
// one k step ahead of their multiplication, sums in f32. A product is what fills a stage (operand.cuh for dense
// matrices) and what becomes of the sums (epilogue.cuh).
//
// Every shape adds along k in the same steps of sixteen into one accumulator for each element, and past the end of k
// come zeros: an element has the same bits whatever shape computed it, so the shape may follow the extents and the
// card.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/tile/fragment.cuh"
#include "kernels/cuda/tile/pipeline.cuh"
#include "kernels/matmul/cuda/tile_order.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int block_k = 64;  // of a stage: 128 bytes, one pass over the banks

// A block's part of the product and how its warps share it: m × n, of which a warp has warp_m × warp_n.
template <int m_, int n_, int warp_m_, int warp_n_, int stages_, int blocks_, Cards cards = Cards::all>
struct ProductShape {
  static constexpr int m = m_, n = n_, warp_m = warp_m_, warp_n = warp_n_, stages = stages_, blocks = blocks_;
  static constexpr int warps_along_n = n / warp_n;
  static constexpr int threads = m / warp_m * warps_along_n * 32;
  static constexpr int shared_bytes = stages * (m + n) * block_k * 2;
  using Resources = BlockResources<threads, blocks, shared_bytes, cards>;
  using Sums = Accumulator<warp_m, warp_n>;

  // Where the warp's part begins.
  static __device__ __forceinline__ int warp_row() {
    return static_cast<int>(threadIdx.x) / 32 / warps_along_n * warp_m;
  }
  static __device__ __forceinline__ int warp_column() {
    return static_cast<int>(threadIdx.x) / 32 % warps_along_n * warp_n;
  }
};

// An operand's part of a stage: `extent` rows (of the left operand; columns of the product for the right one) ×
// block_k.
template <class T, int extent, Major major>
using OperandTile = SwizzledTile<T, major == Major::k ? extent : block_k, major == Major::k ? block_k : extent>;

template <class Shape_, class T_, Major left_major_, Major right_major_>
struct Stage {
  using Shape = Shape_;
  using T = T_;
  static constexpr Major left_major = left_major_, right_major = right_major_;
  OperandTile<T, Shape::m, left_major> left;
  OperandTile<T, Shape::n, right_major> right;
};

// A warp's fragments of a stage: one k step in hand and the next one on its way.
template <class Stage>
class WarpProduct {
  using Shape = typename Stage::Shape;
  using T = typename Stage::T;
  using Sums = typename Shape::Sums;
  static constexpr bool one_fragment = Sums::n == 1;  // of the right operand: it comes for two k steps at a time

 public:
  static constexpr int steps = block_k / 16;

  __device__ __forceinline__ WarpProduct() : left_reader_(Shape::warp_row()), right_reader_(Shape::warp_column()) {}

  __device__ __forceinline__ void load(const Stage& stage, int step) {
    LATHE_UNROLL
    for (int i = 0; i < Sums::m; ++i) left_reader_.load(left_[step % 2][i], stage.left, 16 * i, 16 * step);
    if constexpr (one_fragment) {
      if (step % 2 == 0)
        right_reader_.load(right_[step / 2 % 2][0], right_[step / 2 % 2][1], stage.right, 0, 16 * step);
    } else {
      LATHE_UNROLL
      for (int j = 0; j < Sums::n; j += 2)
        right_reader_.load(right_[step % 2][j], right_[step % 2][j + 1], stage.right, 8 * j, 16 * step);
    }
  }

  __device__ __forceinline__ void multiply(Sums& sums, int step) const {
    LATHE_UNROLL
    for (int i = 0; i < Sums::m; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < Sums::n; ++j)
        mma(sums.at[i][j], left_[step % 2][i], one_fragment ? right_[step / 2 % 2][step % 2] : right_[step % 2][j]);
    }
  }

 private:
  AReader<decltype(Stage::left), Stage::left_major> left_reader_;
  BReader<decltype(Stage::right), Stage::right_major, one_fragment ? BPair::k : BPair::columns> right_reader_;
  AFragment<T> left_[2][Sums::m];
  BFragment<T> right_[2][one_fragment ? 2 : Sums::n];
};

// sums += `steps` stages along k, in `stages`, which nobody reads or writes any more. fill(step, stage) starts the
// copies of a step, each once and in order; tiles past the end of k, and rows past an operand's last, are zeros.
//
// Fragments are loaded one k step before they are multiplied, over the end of a stage, too: the tensor cores have the
// last products of a stage to do while the first fragments of the next one come.
template <class Stage, class Fill>
__device__ __forceinline__ void multiply_stages(typename Stage::Shape::Sums& sums, Stage* stages, int steps,
                                                Fill fill) {
  constexpr int count = Stage::Shape::stages;
  const Pipeline<count> pipeline;
  pipeline.start(steps, [&](int step) { fill(step, stages[step]); });
  WarpProduct<Stage> product;
  if (steps > 0) {
    pipeline.wait();
    product.load(stages[0], 0);
  }
  int reading = 0, filling = count - 1;  // stages
  for (int step = 0; step < steps; ++step) {
    const Stage& current = stages[reading];
    Stage& empty = stages[filling];
    reading = reading + 1 == count ? 0 : reading + 1;
    filling = filling + 1 == count ? 0 : filling + 1;
    pipeline.fill_ahead(step, steps, [&](int ahead) { fill(ahead, empty); });
    LATHE_UNROLL
    for (int k_step = 0; k_step < product.steps; ++k_step) {
      if (k_step + 1 < product.steps) {
        product.load(current, k_step + 1);
      } else if (step + 1 < steps) {
        pipeline.wait();  // for the next stage; all have this one in their registers: it is empty
        product.load(stages[reading], 0);
      }
      product.multiply(sums, k_step);
    }
  }
}

__host__ __device__ __forceinline__ int stages_along(int64_t k) {
  return static_cast<int>((k + block_k - 1) / block_k);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
