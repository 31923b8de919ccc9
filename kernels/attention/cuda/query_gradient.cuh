// grad_q: a block for each tile of queries and head (backward.cuh).
#pragma once

#include "kernels/attention/cuda/backward.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

template <class Shape>
__device__ __forceinline__ void query_piece_gradients(const Backward<typename Shape::T>& a, const SequencePiece& piece,
                                                      int head) {
  using T = typename Shape::T;
  const int window = a.rule.window, kv_head = head / a.group;
  const int first_query = piece.index * Shape::own, left = piece.length - first_query;
  const Span own = warp_span<Shape>(first_query, piece.length);
  auto& memory = Shape::memory();

  const Span of_block = rows_span(first_query, Shape::own, piece.length);
  const PassingSteps of_keys = key_steps<Shape::step>(of_block, window);
  const int steps = of_keys.end - of_keys.begin;
  const auto load = [&](int n) {
    const int first = (of_keys.begin + n) * Shape::step;
    const int count = of_block.last + 1 - first < Shape::step ? of_block.last + 1 - first : Shape::step;
    load_head_rows<Shape::threads>(memory.stage(n).at[0], a.k, piece.start + first, kv_head, count, a.head_dim);
    load_head_rows<Shape::threads>(memory.stage(n).at[1], a.v, piece.start + first, kv_head, count, a.head_dim);
  };
  load_head_rows<Shape::threads>(memory.own[0], a.q, piece.start + first_query, head, left, a.head_dim);
  load_head_rows<Shape::threads>(memory.own[1], a.grad_out, piece.start + first_query, head, left, a.head_dim);
  const typename Shape::Steps pipeline;
  pipeline.start(steps, load);

  RowValues<Shape::warp_rows, RowTerms> own_terms;
  load_own_terms(own_terms, a, piece, own, head);
  typename Shape::Gradient grad_q;
  for (int n = 0; n < steps; ++n) {
    pipeline.advance(n, steps, load);
    const int first = (of_keys.begin + n) * Shape::step;
    const Span passing{first, first + Shape::step - 1};
    if (!some_seen(own, passing, window)) continue;

    const auto &keys = memory.stage(n).at[0], &values = memory.stage(n).at[1];
    typename Shape::Scores s, ds;
    multiply_transposed(s, memory.own[0], Shape::warp_row(), keys, a.head_dim);
    multiply_transposed(ds, memory.own[1], Shape::warp_row(), values, a.head_dim);
    score_gradients<T>(s, ds, a.rule, QueriesMeetKeys<Shape::warp_rows>{own, passing, window, own_terms});
    add_weighted<Shape>(grad_q, ds, keys, a.head_dim);
  }
  store_gradient<Shape>(grad_q, a.scale, memory.own[0], a.grad_q, piece.start + own.first, head,
                        own.last - own.first + 1, a.head_dim);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
