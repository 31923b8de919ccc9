// What the passes of mamba2 on a card share. S, or its gradient, lies in registers while its tokens go by
// (kernels/cuda/column_pairs.cuh), N being its rows.
#pragma once

#include "kernels/cuda/column_pairs.cuh"
#include "kernels/mamba2/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2 {

using namespace column_pairs;

template <class T>
__device__ __forceinline__ float number_of(const Mamba2Weight& weight, int64_t i) {
  return column_pairs::number_of<T>(weight.data, weight.wide, i);
}

// dt + dt_bias, Δ and γ of a token. (A NaN stays one.)
struct Steps {
  float raw, step, gamma;
};
template <class T>
__device__ __forceinline__ Steps steps_of(const Mamba2Inputs& in, int64_t head, T dt) {
  Steps steps;
  steps.raw = to_float(dt) + number_of<T>(in.dt_bias, head);
  const float free = softplus(steps.raw), least = free < in.dt_min ? in.dt_min : free;
  steps.step = least > in.dt_max ? in.dt_max : least;
  steps.gamma = expf(-(expf(number_of<T>(in.A_log, head)) * steps.step));
  return steps;
}

// What a block has of four tokens: B and C along N, and of x, or out's gradient, the block's own columns.
template <int dim>
struct Stage {
  float b[stage_tokens][dim], c[stage_tokens][dim], columns[stage_tokens][block_columns];
  Steps steps[stage_tokens];
};

// A warp's token on its way there.
template <class T, int dim>
class Token {
 public:
  // `columns`: the row of x or of out's gradient, from the block's first column on, of which `count` are there.
  __device__ __forceinline__ void fetch(const Mamba2Inputs& in, int64_t head, int64_t row, const T* columns,
                                        int count) {
    const T* const xbc = row_of<T>(in.xbc, row);
    LATHE_UNROLL
    for (int j = 0; j < each; ++j) {
      const int i = j * 32 + lane();
      if (i >= in.state_size) continue;
      b_[j] = xbc[in.b_column(head) + i];
      c_[j] = xbc[in.c_column(head) + i];
    }
    if (lane() < count) column_ = columns[lane()];
    dt_ = row_of<T>(in.dt, row)[head];
  }
  __device__ __forceinline__ void put(const Mamba2Inputs& in, int64_t head, Stage<dim>& stage, int count) const {
    LATHE_UNROLL
    for (int j = 0; j < each; ++j) {
      const int i = j * 32 + lane();
      stage.b[warp()][i] = i < in.state_size ? to_float(b_[j]) : 0.0f;
      stage.c[warp()][i] = i < in.state_size ? to_float(c_[j]) : 0.0f;
    }
    stage.columns[warp()][lane()] = lane() < count ? to_float(column_) : 0.0f;
    const Steps steps = steps_of(in, head, dt_);
    if (lane() == 0) stage.steps[warp()] = steps;
  }

 private:
  static constexpr int each = dim / 32;
  T b_[each], c_[each], column_, dt_;
};

// A block's columns of one head of one sequence.
struct Place {
  int64_t sequence, begin, end;  // and its rows
  int64_t head;
  int first_column, columns;  // the block's, of those there are
  __device__ __forceinline__ int column() const { return first_column + column_in_block(); }
  __device__ __forceinline__ bool has_columns() const { return column_in_block() < columns; }
  // The chunk that has a row.
  __device__ __forceinline__ int64_t chunk_of(int64_t row) const {
    return first_token_chunk(sequence, begin) + (row - begin) / token_chunk;
  }
  __device__ __forceinline__ bool at_chunk_bound(int64_t row) const {
    return (row - begin) % token_chunk == 0 && row > begin && row < end;
  }
};
__device__ __forceinline__ Place place_of_block(const Mamba2Inputs& in, int64_t sequence, int64_t begin, int64_t end) {
  const int first = static_cast<int>(blockIdx.x) * block_columns, left = static_cast<int>(in.head_dim) - first;
  return {sequence, begin, end, blockIdx.y, first, left < block_columns ? left : block_columns};
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2
