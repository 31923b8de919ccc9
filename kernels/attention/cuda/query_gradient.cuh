// grad_q: a block for each tile of queries and head (backward.cuh).
#pragma once

#include "kernels/attention/cuda/backward.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

template <class Shape>
__device__ __forceinline__ void query_piece_gradients(const Backward<typename Shape::T>& a, const SequencePiece& piece,
                                                      int head) {
  using T = typename Shape::T;
  const int lane = static_cast<int>(threadIdx.x) % 32, window = a.rule.window, kv_head = head / a.group;
  const int first_query = piece.index * Shape::own, left = piece.length - first_query;
  const Span own = warp_span<Shape>(first_query, piece.length);
  auto& memory = Shape::memory();

  // The keys that some of the block's queries see, in steps counted from the sequence's start.
  const int first_key = window > 0 && first_query >= window ? first_query + 1 - window : 0;
  const int first_step = first_key / Shape::step;
  const int last_key = (first_query + Shape::own < piece.length ? first_query + Shape::own : piece.length) - 1;
  const int steps = last_key / Shape::step - first_step + 1;
  const auto load = [&](int n) {
    const int first = (first_step + n) * Shape::step;
    const int count = last_key + 1 - first < Shape::step ? last_key + 1 - first : Shape::step;
    load_head_rows<Shape::threads>(memory.stage(n).at[0], a.k, piece.start + first, kv_head, count, a.head_dim);
    load_head_rows<Shape::threads>(memory.stage(n).at[1], a.v, piece.start + first, kv_head, count, a.head_dim);
  };
  load_head_rows<Shape::threads>(memory.own[0], a.q, piece.start + first_query, head, left, a.head_dim);
  load_head_rows<Shape::threads>(memory.own[1], a.grad_out, piece.start + first_query, head, left, a.head_dim);
  const typename Shape::Steps pipeline;
  pipeline.start(steps, load);

  RowValues<Shape::warp_rows, RowTerms> own_terms;
  for_each_row(own_terms, [&](int i, int h, RowTerms& terms) {
    const int query = own.first + i * 16 + h * 8 + lane / 4;
    terms = query < piece.length ? row_terms(a, piece.start + query, head) : RowTerms{-nothing, 0.0f};
  });
  typename Shape::Gradient grad_q;
  for (int n = 0; n < steps; ++n) {
    pipeline.advance(n, steps, load);
    const int first = (first_step + n) * Shape::step;
    const Span passing{first, first + Shape::step - 1};
    if (!some_seen(own, passing, window)) continue;

    const auto &keys = memory.stage(n).at[0], &values = memory.stage(n).at[1];
    typename Shape::Scores s, ds;
    multiply_transposed(s, memory.own[0], Shape::warp_row(), keys, a.head_dim);
    multiply_transposed(ds, memory.own[1], Shape::warp_row(), values, a.head_dim);
    const auto terms = [&](int i, int, int e) { return own_terms.at[i][e / 2]; };
    const auto seen = [&](int i, int j, int e) {
      return sees(own.first + i * 16 + fragment_row(lane, e), first + j * 8 + fragment_column(lane, e), window);
    };
    score_gradients<T>(s, ds, a.rule, all_seen(own, passing, window), terms, seen);
    add_weighted<Shape>(grad_q, ds, keys, a.head_dim);
  }
  store_gradient<Shape>(grad_q, a.scale, memory.own[0], a.grad_q, piece.start + own.first, head,
                        own.last - own.first + 1, a.head_dim);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
