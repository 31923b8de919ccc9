// Chunks of a decoded sequence that are computed apart: how a warp puts one's result away, and how they are merged in
// order, by the arithmetic that merges them within a tile (kernels/attention/cuda/attend.cuh).
#pragma once

#include "kernels/attention/cuda/attend.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Results of one chunk: outputs [rows][width], maxima [rows], sums [rows].
struct Partial {
  float* out;
  int width;
  float *maximum, *sum;
};

// By the warp that has them.
template <class Shape>
__device__ __forceinline__ void put_chunk_away(const Partial& partial, int rows, int head_dim,
                                               const typename Shape::RowState& maximum,
                                               const typename Shape::RowState& sum,
                                               const typename Shape::Weights& weights,
                                               const typename Shape::ChunkTile& values) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  LATHE_UNROLL
  for (int h = 0; h < 2; ++h) {
    const int row = lane / 4 + 8 * h;
    if (lane % 4 != 0 || row >= rows) continue;
    partial.maximum[row] = maximum.at[0][h];
    partial.sum[row] = sum.at[0][h];
  }
#pragma unroll 1
  for (int j = 0; 8 * j < head_dim; j += 2) {
    const auto out = flash::chunk_output<Shape>(weights, values, j);
    LATHE_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int row = lane / 4 + e / 2 * 8;
      if (row < rows)
        store_vector<float2>(partial.out + row * partial.width + (j + e % 2) * 8 + lane % 4 * 2,
                             make_float2(out.at[0][e % 2][e / 2 * 2], out.at[0][e % 2][e / 2 * 2 + 1]));
    }
  }
}

// By a thread: four elements of a row, of `count` chunks, become the row's output, and its lse where they are the first
// four. The loads of some chunks are under way together; the merge waits for each in turn.
template <class T, class PartialOf>
__device__ __forceinline__ void merge_chunks(const flash::TileCall<T>& call, const flash::Tile& tile, int count,
                                             int row, int column, PartialOf partial_of) {
  constexpr int ahead = 8;
  float maximum = flash::nothing, sum = 0.0f;
  float4 out{0.0f, 0.0f, 0.0f, 0.0f};
  for (int first = 0; first < count; first += ahead) {
    float maxima[ahead], sums[ahead];
    float4 outs[ahead];
    LATHE_UNROLL
    for (int i = 0; i < ahead; ++i) {
      const Partial partial = partial_of(first + i < count ? first + i : count - 1);
      maxima[i] = partial.maximum[row];
      sums[i] = partial.sum[row];
      outs[i] = load_vector<float4>(partial.out + row * partial.width + column);
    }
    LATHE_UNROLL
    for (int i = 0; i < ahead; ++i) {
      if (first + i >= count) continue;
      const flash::MergeFactors factors = flash::merge_factors(maximum, sum, maxima[i], sums[i]);
      out.x = flash::merge_output(out.x, outs[i].x, factors);
      out.y = flash::merge_output(out.y, outs[i].y, factors);
      out.z = flash::merge_output(out.z, outs[i].z, factors);
      out.w = flash::merge_output(out.w, outs[i].w, factors);
    }
  }
  if (column == 0) flash::write_lse(call, tile, row, maximum, sum);
  const float factor = flash::final_factor(sum);
  T* const target = flash::row_address(call.out, call.out_token, call.out_head, tile, call.group, row) + column;
  const float elements[4] = {out.x, out.y, out.z, out.w};
  LATHE_UNROLL
  for (int j = 0; j < 4; ++j)
    if (column + j < call.head_dim) target[j] = from_float<T>(fmaf(elements[j], factor, 0.0f));
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
