// What the passes of gated_delta on a card share. S, or its gradient, lies in registers while its tokens go by
// (kernels/cuda/column_pairs.cuh). A token waits for the sum of the one before it. Sums along the columns are made by
// chunks of tokens (chunks.cu).
#pragma once

#include "kernels/cuda/column_pairs.cuh"
#include "kernels/gated_delta/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::gated_delta {

using namespace column_pairs;

__device__ __forceinline__ float q_scale(const GatedDeltaInputs& in) {
  return 1.0f / sqrtf(static_cast<float>(in.key_dim));
}
__device__ __forceinline__ float inverse_length(float squares) { return 1.0f / sqrtf(squares + 1e-6f); }
struct Gates {
  float beta, gamma;
};
template <class T>
__device__ __forceinline__ Gates gates_of(const GatedDeltaInputs& in, int64_t head, T a, T b) {
  const float rate = expf(number_of<T>(in.A_log, in.wide_A_log, head));
  const float step = to_float(a) + number_of<T>(in.dt_bias, in.wide_dt_bias, head);
  return {sigmoid(to_float(b)), expf(-(rate * softplus(step)))};
}

// What a block has of four tokens: q̂ and k̂ along Dk, and of v, or out's gradient, the block's own columns.
template <int dim>
struct Stage {
  float q[stage_tokens][dim], k[stage_tokens][dim], columns[stage_tokens][block_columns];
  Gates gates[stage_tokens];
};

// A warp's token on its way there.
template <class T, int dim>
class Token {
 public:
  // `columns`: the row of v or of out's gradient, from the block's first column on, of which `count` are there.
  __device__ __forceinline__ void fetch(const GatedDeltaInputs& in, int64_t head, int64_t row, const T* columns,
                                        int count) {
    const T* const qkv = row_of<T>(in.qkv, row);
    LATHE_UNROLL
    for (int j = 0; j < each; ++j) {
      const int i = j * 32 + lane();
      if (i >= in.key_dim) continue;
      q_[j] = qkv[in.q_column(head) + i];
      k_[j] = qkv[in.k_column(head) + i];
    }
    if (lane() < count) column_ = columns[lane()];
    a_ = row_of<T>(in.a, row)[head];
    b_ = row_of<T>(in.b, row)[head];
  }
  __device__ __forceinline__ void put(const GatedDeltaInputs& in, int64_t head, Stage<dim>& stage, int count) const {
    put_normed(in, q_, q_scale(in), stage.q[warp()]);
    put_normed(in, k_, 1.0f, stage.k[warp()]);
    stage.columns[warp()][lane()] = lane() < count ? to_float(column_) : 0.0f;
    const Gates gates = gates_of(in, head, a_, b_);
    if (lane() == 0) stage.gates[warp()] = gates;
  }

 private:
  static constexpr int each = dim / 32;

  static __device__ __forceinline__ void put_normed(const GatedDeltaInputs& in, const T (&x)[each], float scale,
                                                    float* to) {
    float squares = 0.0f;
    LATHE_UNROLL
    for (int j = 0; j < each; ++j)
      if (j * 32 + lane() < in.key_dim) squares = fmaf(to_float(x[j]), to_float(x[j]), squares);
    const float factor = inverse_length(warp_sum(squares)) * scale;
    LATHE_UNROLL
    for (int j = 0; j < each; ++j) {
      const int i = j * 32 + lane();
      to[i] = i < in.key_dim ? to_float(x[j]) * factor : 0.0f;
    }
  }

  T q_[each], k_[each], column_, a_, b_;
};

// A block's columns of one value head of one sequence.
struct Place {
  int64_t sequence, begin, end;  // and its rows
  int64_t head;
  int first_column, columns;  // the block's, of those there are
  __device__ __forceinline__ int column() const { return first_column + column_in_block(); }
  __device__ __forceinline__ bool has_columns() const { return column_in_block() < columns; }
};
__device__ __forceinline__ Place place_of_block(const GatedDeltaInputs& in, int64_t sequence, int64_t begin,
                                                int64_t end) {
  const int first = static_cast<int>(blockIdx.x) * block_columns, left = static_cast<int>(in.value_dim) - first;
  return {sequence, begin, end, blockIdx.y, first, left < block_columns ? left : block_columns};
}
__device__ __forceinline__ int64_t chunk_of(const Place& place, int64_t row) {
  return first_token_chunk(place.sequence, place.begin) + (row - place.begin) / token_chunk;
}
__device__ __forceinline__ bool at_chunk_bound(const Place& place, int64_t row) {
  return (row - place.begin) % token_chunk == 0 && row > place.begin && row < place.end;
}
__device__ __forceinline__ int64_t matrix_of(const GatedDeltaInputs& in, int64_t index, int64_t head) {
  return (index * in.value_heads + head) * in.key_dim * in.value_dim;
}
__device__ __forceinline__ int64_t values_of(const GatedDeltaInputs& in, int64_t row, int64_t head) {
  return (row * in.value_heads + head) * in.value_dim;
}
__device__ __forceinline__ int64_t keys_of(const GatedDeltaInputs& in, int64_t row, int64_t head) {
  return (row * in.value_heads + head) * in.key_dim;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::gated_delta
