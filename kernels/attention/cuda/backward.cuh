// The backward of attention in three kernels: D = rowsum(grad_out ∘ out); grad_k and grad_v, a block for each tile of
// keys and kv head, over the heads of its group, then the queries, ascending; grad_q, a block for each tile of queries
// and head, over its keys. Scores are computed twice, which makes seven products of five, and no sum needs an atomic or
// a buffer of partial sums.
//
// The two passes have one shape, which this file describes. A warp owns rows of two matrices (keys and values; queries
// and grad_out), the others pass by in steps, two in flight. Products with the warp's own rows on the left leave scores
// and their gradients in the registers where the next product wants its left operand: nothing but rows of inputs goes
// through shared memory.
#pragma once

#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/cuda/scores.cuh"
#include "kernels/attention/cuda/sequences.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/tile/pipeline.cuh"
#include "kernels/cuda/tile/product.cuh"
#include "kernels/cuda/tile/rows.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

template <class T>
struct Rows {
  T* data;
  int64_t token, head;
  bool aligned;

  __device__ __forceinline__ T* at(int64_t token_index, int64_t head_index) const {
    return data + token_index * token + head_index * head;
  }
};

template <class T>
struct Backward {
  Rows<T> grad_q, grad_k, grad_v;
  Rows<const T> grad_out, q, k, v, out;
  const float* lse;
  int64_t lse_head;
  float* dots;
  int64_t tokens;
  int heads, kv_heads, group, head_dim;
  ScoreRule rule;
  float scale;
};

// Head size, warps, rows that each owns, rows that pass by at a time, and blocks that a multiprocessor of sm_80 holds
// at once. `apart`: grad_k and grad_v one after the other, because their sums do not fit a thread's registers together;
// that computes the scores a third time.
template <class T_, int head_size, int warps_, int warp_rows_, int step_, int blocks, bool apart_ = false>
struct BackwardShape {
  using T = T_;
  static constexpr int D = head_size, warps = warps_, warp_rows = warp_rows_, step = step_;
  [[maybe_unused]] static constexpr bool apart = apart_;
  static constexpr int threads = 32 * warps, own = warps * warp_rows;

  using Scores = Accumulator<warp_rows, step>;
  using Weights = LeftOperand<T, warp_rows, step>;
  using Gradient = Accumulator<warp_rows, D>;
  using OwnTile = PaddedTile<T, own, D>;
  using PassingTile = PaddedTile<T, step, D>;
  using Steps = Pipeline<2>;
  struct Memory {
    OwnTile own[2];  // keys and values; queries and grad_out
    struct Stage {
      PassingTile at[2];  // the others
    } stages[Steps::stages];

    __device__ __forceinline__ Stage& stage(int number) { return stages[number % Steps::stages]; }
  };  // and the warps' rooms for scores
  static constexpr int shared_bytes = static_cast<int>(sizeof(Memory)) + warps * Weights::room_bytes;
  using Resources = BlockResources<threads, blocks, shared_bytes>;

  static __device__ __forceinline__ Memory& memory() { return *dynamic_shared<Memory>(); }
  static __device__ __forceinline__ void* room() {
    return reinterpret_cast<char*>(&memory() + 1) + static_cast<int>(threadIdx.x) / 32 * Weights::room_bytes;
  }
  // The warp's first row of the block's.
  static __device__ __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / 32 * warp_rows; }
};

// What a query's row brings to its scores: lse in log2 units and D.
struct RowTerms {
  float lse, dot;
};
template <class T>
__device__ __forceinline__ RowTerms row_terms(const Backward<T>& a, int64_t token, int64_t head) {
  return {a.lse[head * a.lse_head + token] * log2_e, a.dots[head * a.tokens + token]};
}

// Products q·k in s and grad_out·v in ds become P and dS / scale. terms(i, j, e) are the query's, seen(i, j, e) says
// whether it sees the key; not asked where all do.
template <class T, int rows, int columns, class Terms, class Seen>
__device__ __forceinline__ void score_gradients(Accumulator<rows, columns>& s, Accumulator<rows, columns>& ds,
                                                const ScoreRule& rule, bool all, Terms terms, Seen seen) {
  if (rule.cap > 0) {
    for_each(s, [&](int i, int j, int e, float& score) {
      const float t = tanh_of<T>(score * rule.factor);
      score = rule.cap * t;
      ds.at[i][j][e] = (ds.at[i][j][e] - terms(i, j, e).dot) * fmaf(-t, t, 1.0f);
    });
  } else {
    for_each(s, [&](int i, int j, int e, float& score) {
      score *= rule.factor;
      ds.at[i][j][e] -= terms(i, j, e).dot;
    });
  }
  for_each(s, [&](int i, int j, int e, float& p) { p = exp2_fast(p - terms(i, j, e).lse); });
  if (!all) {
    for_each(s, [&](int i, int j, int e, float& p) {
      if (!seen(i, j, e)) p = 0.0f;
    });
  }
  for_each(s, [&](int i, int j, int e, float p) { ds.at[i][j][e] *= p; });
}

// gradient += scores, rounded to T, · passing
template <class Shape>
__device__ __forceinline__ void add_weighted(typename Shape::Gradient& gradient, const typename Shape::Scores& scores,
                                             const typename Shape::PassingTile& passing, int head_dim) {
  const typename Shape::Weights weights(scores, Shape::room());
  LATHE_UNROLL
  for (int j = 0; j < gradient.n; j += 2) {
    if (8 * j >= head_dim) break;
    multiply_columns(gradient, j, weights, passing, 8 * j);
  }
}

// Rows of one head from `token` on, `count` of them.
template <int threads, class Tile, class T>
__device__ __forceinline__ void load_head_rows(Tile& tile, const Rows<const T>& rows, int64_t token, int64_t head,
                                               int count, int head_dim) {
  load_rows<threads>(tile, count, head_dim, rows.aligned, [&](int r) { return rows.at(token + r, head); });
}

// Through the warp's own rows in a tile, which no other warp reads.
template <class Shape, class T>
__device__ __forceinline__ void store_gradient(typename Shape::Gradient& gradient, float scale,
                                               typename Shape::OwnTile& through, const Rows<T>& rows, int64_t token,
                                               int64_t head, int count, int head_dim) {
  for_each(gradient, [&](int, int, int, float& sum) { sum *= scale; });
  store_rows(gradient, through, Shape::warp_row(), count, head_dim, rows.aligned,
             [&](int r) { return rows.at(token + r, head); });
}

// The part of [first, first + Shape::own) that is the warp's, as far as the sequence goes.
template <class Shape>
__device__ __forceinline__ Span warp_span(int first, int length) {
  const int begin = first + Shape::warp_row(), end = begin + Shape::warp_rows;
  return {begin, (end < length ? end : length) - 1};
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
