// The backward of attention in three kernels: D = rowsum(grad_out ∘ out); grad_k and grad_v, a block for each tile of
// keys and kv head, over the heads of its group, then the queries, ascending; grad_q, a block for each tile of queries
// and head, over its keys. Scores are computed twice, which makes seven products of five, and no sum needs an atomic or
// a buffer of partial sums. On sm_90a backward_sm_90a.cu takes what it can of the two passes.
//
// The two passes have one shape, which this file describes. A warp owns rows of two matrices (keys and values; queries
// and grad_out), the others pass by in steps, two in flight. Products with the warp's own rows on the left leave scores
// and their gradients in the registers where the next product wants its left operand: nothing but rows of inputs goes
// through shared memory.
#pragma once

#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/cuda/attend.cuh"
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

// What both passes need, however inputs come to a block.
template <class T>
struct Gradients {
  Rows<T> grad_q, grad_k, grad_v;
  const float* lse;
  int64_t lse_head;
  float* dots;
  int64_t tokens;
  int heads, kv_heads, group, head_dim;
  ScoreRule rule;
  float scale;
};
template <class T>
struct Backward : Gradients<T> {
  Rows<const T> grad_out, q, k, v, out;
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
__device__ __forceinline__ RowTerms row_terms(const Gradients<T>& a, int64_t token, int64_t head) {
  return {a.lse[head * a.lse_head + token] * log2_e, a.dots[head * a.tokens + token]};
}
// Of a query that is not there, which sees nothing: 2^(0 − ∞).
inline constexpr RowTerms no_terms{-nothing, 0.0f};

// Which pairs of a query and a key a warp's scores are of: its own keys meet passing queries, whose terms are
// of_column(8 j + …), or its own queries, whose terms are own_terms, meet passing keys. Spans begin where the scores do
// and end where the sequence may.
template <class Terms>
struct KeysMeetQueries {
  Span keys, queries;
  int window;
  Terms of_column;

  __device__ __forceinline__ bool all_seen() const { return flash::all_seen(queries, keys, window); }
  __device__ __forceinline__ bool seen(int i, int j, int e) const {
    return sees(queries.first + column(j, e), keys.first + i * 16 + fragment_row(lane(), e), window);
  }
  __device__ __forceinline__ RowTerms terms(int, int j, int e) const { return of_column(column(j, e)); }

 private:
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ __forceinline__ int column(int j, int e) { return j * 8 + fragment_column(lane(), e); }
};
template <int rows>
struct QueriesMeetKeys {
  Span queries, keys;
  int window;
  const RowValues<rows, RowTerms>& own_terms;

  __device__ __forceinline__ bool all_seen() const { return flash::all_seen(queries, keys, window); }
  __device__ __forceinline__ bool seen(int i, int j, int e) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return sees(queries.first + i * 16 + fragment_row(lane, e), keys.first + j * 8 + fragment_column(lane, e), window);
  }
  __device__ __forceinline__ RowTerms terms(int i, int, int e) const { return own_terms.at[i][e / 2]; }
};

// Scores / unit (scores.cuh) become P.
template <int rows, int columns, class Pairs>
__device__ __forceinline__ void find_weights(Accumulator<rows, columns>& s, float unit, const Pairs& pairs) {
  for_each(s, [&](int i, int j, int e, float& p) { p = exp2_fast(fmaf(p, unit, -pairs.terms(i, j, e).lse)); });
  if (pairs.all_seen()) return;
  for_each(s, [&](int i, int j, int e, float& p) {
    if (!pairs.seen(i, j, e)) p = 0.0f;
  });
}

// grad_out·v with P becomes dS / scale: score_gradients() where no cap ties both to the products q·k, in which P is
// find_weights() of the scale.
template <int rows, int columns, class Pairs>
__device__ __forceinline__ void uncapped_gradients(Accumulator<rows, columns>& ds, const Accumulator<rows, columns>& p,
                                                   const Pairs& pairs) {
  for_each(
      ds, [&](int i, int j, int e, float& product) { product = (product - pairs.terms(i, j, e).dot) * p.at[i][j][e]; });
}

// Products q·k in s and grad_out·v in ds become P and dS / scale.
template <class T, int rows, int columns, class Pairs>
__device__ __forceinline__ void score_gradients(Accumulator<rows, columns>& s, Accumulator<rows, columns>& ds,
                                                const ScoreRule& rule, const Pairs& pairs) {
  if (rule.cap > 0) {
    for_each(s, [&](int i, int j, int e, float& score) {
      const float t = tanh_of<T>(score * rule.factor);
      score = t;
      ds.at[i][j][e] = (ds.at[i][j][e] - pairs.terms(i, j, e).dot) * fmaf(-t, t, 1.0f);
    });
  } else {
    for_each(ds, [&](int i, int j, int e, float& product) { product -= pairs.terms(i, j, e).dot; });
  }
  find_weights(s, rule.unit, pairs);
  for_each(s, [&](int i, int j, int e, float p) { ds.at[i][j][e] *= p; });
}

// The terms of the warp's own queries, of `head`.
template <class T, int rows>
__device__ __forceinline__ void load_own_terms(RowValues<rows, RowTerms>& own_terms, const Gradients<T>& a,
                                               const SequencePiece& piece, Span own, int head) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for_each_row(own_terms, [&](int i, int h, RowTerms& terms) {
    const int query = own.first + i * 16 + h * 8 + lane / 4;
    terms = query < piece.length ? row_terms(a, piece.start + query, head) : no_terms;
  });
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

// The part of [first, first + rows) that there is of the sequence.
__device__ __forceinline__ Span rows_span(int first, int rows, int length) {
  return {first, (first + rows < length ? first + rows : length) - 1};
}

// The warp's rows of a block's that begin at `first`.
template <class Shape>
__device__ __forceinline__ Span warp_span(int first, int length) {
  return rows_span(first + Shape::warp_row(), Shape::warp_rows, length);
}

// Steps of rows that pass by, [begin, end), counted from the sequence's start.
struct PassingSteps {
  int begin, end;
};
// The queries that see some of the keys, of which there are any.
template <int step>
__device__ __forceinline__ PassingSteps query_steps(Span keys, int length, int window) {
  const int last_query = window > 0 && window < length - keys.last ? keys.last + window - 1 : length - 1;
  return {keys.first / step, last_query / step + 1};
}
// The keys that some of the queries see, of which there are any.
template <int step>
__device__ __forceinline__ PassingSteps key_steps(Span queries, int window) {
  const int first_key = window > 0 && queries.first >= window ? queries.first + 1 - window : 0;
  return {first_key / step, queries.last / step + 1};
}

// ---- host ----

template <class Element>
Rows<Element> rows_of(const HeadRows& x) {
  return {static_cast<Element*>(x.data), x.token, x.head, heads_aligned<Element>(x)};
}

template <class T>
Gradients<T> gradients_of(const AttentionBackwardCuda& args) {
  const int heads = static_cast<int>(args.heads), kv_heads = static_cast<int>(args.kv_heads);
  return {.grad_q = rows_of<T>(args.grad_q),
          .grad_k = rows_of<T>(args.grad_k),
          .grad_v = rows_of<T>(args.grad_v),
          .lse = args.lse,
          .lse_head = args.lse_head,
          .dots = args.dots,
          .tokens = args.tokens,
          .heads = heads,
          .kv_heads = kv_heads,
          .group = heads / kv_heads,
          .head_dim = static_cast<int>(args.head_dim),
          .rule = score_rule(args.params),
          .scale = args.params.scale};
}

// Calls launch_some(sequences) with sequences in pieces of `own` rows, until all are done.
template <class LaunchSome>
void for_each_launch_of_pieces(const AttentionBackwardCuda& args, int own, LaunchSome launch_some) {
  for_each_launch(
      args.cu_seqlens, args.sequences, [own](int length) { return (length + own - 1) / own; }, launch_some);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
