// Stages of gate and up: a block has the same columns of both, beside each other in one tile of the right operand.
#pragma once

#include "kernels/matmul/cuda/gated_epilogue.cuh"
#include "kernels/matmul/cuda/mainloop.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

template <class Shape>
inline constexpr int gated_columns_of = Shape::n / 2;
template <class Shape, class T>
using GatedHalf = OperandTile<T, gated_columns_of<Shape>, Major::k>;

// The rows of a stage's right tile from half its rows · index on, as a tile.
template <int index, class Shape, class T>
__device__ __forceinline__ GatedHalf<Shape, T>& half_of(Stage<Shape, T, Major::k, Major::k>& stage) {
  using Whole = OperandTile<T, Shape::n, Major::k>;
  constexpr int first = index * gated_columns_of<Shape>, start = first * Whole::pitch;
  static_assert(Whole::offset(first + 5, 24) == start + GatedHalf<Shape, T>::offset(5, 24),
                "a tile's rows lie as those of the whole");
  return *reinterpret_cast<GatedHalf<Shape, T>*>(stage.right.elements + start);
}

// The block's sums in the stages' memory, for finish_gated: there for all, when no stage is read or written any more.
template <class Shape>
__device__ __forceinline__ const auto& gated_sums_of_tile(const typename Shape::Sums& sums, void* memory) {
  using All = GatedSums<Shape::m, gated_columns_of<Shape>>;
  static_assert(sizeof(All) <= Shape::shared_bytes);
  All& all = *static_cast<All*>(memory);
  __syncthreads();  // all are done with the last stage
  store_fragments(sums, all, Shape::warp_row(), Shape::warp_column());
  __syncthreads();  // the sums are there
  return all;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
