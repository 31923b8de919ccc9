// grad_k and grad_v: a block for each tile of keys and kv head (backward.cuh).
#pragma once

#include "kernels/attention/cuda/backward.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

enum class Wanted { both, keys, values };

// lse and D of a passing query lie after its elements, where rows are padded.
template <class Tile>
__device__ __forceinline__ void* terms_of(Tile& queries, int row) {
  static_assert(Tile::Layout::padding_bytes >= sizeof(float2));
  return queries.elements + Tile::offset(row, Tile::columns);
}

// A step of the queries of a head, their grad_out, and what each brings to its scores.
template <class Shape>
__device__ __forceinline__ void load_queries(const Backward<typename Shape::T>& a, typename Shape::Memory::Stage& stage,
                                             const SequencePiece& piece, int first, int head) {
  const int count = piece.length - first < Shape::step ? piece.length - first : Shape::step;
  load_head_rows<Shape::threads>(stage.at[0], a.q, piece.start + first, head, count, a.head_dim);
  load_head_rows<Shape::threads>(stage.at[1], a.grad_out, piece.start + first, head, count, a.head_dim);
  for (int r = static_cast<int>(threadIdx.x); r < Shape::step; r += Shape::threads) {
    const RowTerms terms = r < count ? row_terms(a, piece.start + first + r, head) : no_terms;
    store_vector<float2>(terms_of(stage.at[0], r), make_float2(terms.lse, terms.dot));
  }
}

template <class Shape, Wanted wanted>
__device__ __forceinline__ void key_gradients(const Backward<typename Shape::T>& a, const SequencePiece& piece,
                                              int kv_head) {
  using T = typename Shape::T;
  constexpr bool keys_wanted = wanted != Wanted::values, values_wanted = wanted != Wanted::keys;
  auto& memory = Shape::memory();
  const int window = a.rule.window, first_key = piece.index * Shape::own;
  const Span own = warp_span<Shape>(first_key, piece.length);
  const PassingSteps of_head =
      query_steps<Shape::step>(rows_span(first_key, Shape::own, piece.length), piece.length, window);
  const int steps_of_head = of_head.end - of_head.begin, steps = a.group * steps_of_head;
  const auto first_query = [&](int n) { return (of_head.begin + n % steps_of_head) * Shape::step; };
  const auto load = [&](int n) {
    load_queries<Shape>(a, memory.stage(n), piece, first_query(n), kv_head * a.group + n / steps_of_head);
  };

  typename Shape::Gradient grad_k, grad_v;  // one that is not wanted is never touched
  const typename Shape::Steps pipeline;
  pipeline.start(steps, load);
  for (int n = 0; n < steps; ++n) {
    pipeline.advance(n, steps, load);
    const int first = first_query(n);
    const Span passing{first, first + Shape::step - 1};
    if (!some_seen(passing, own, window)) continue;

    auto &queries = memory.stage(n).at[0], &grad_out = memory.stage(n).at[1];
    typename Shape::Scores s, ds;
    multiply_transposed(s, memory.own[0], Shape::warp_row(), queries, a.head_dim);
    if constexpr (keys_wanted) multiply_transposed(ds, memory.own[1], Shape::warp_row(), grad_out, a.head_dim);
    const auto terms = [&](int column) {
      const float2 both = load_vector<float2>(terms_of(queries, column));
      return RowTerms{both.x, both.y};
    };
    score_gradients<T>(s, ds, a.rule, KeysMeetQueries<decltype(terms)>{own, passing, window, terms});
    if constexpr (values_wanted) add_weighted<Shape>(grad_v, s, grad_out, a.head_dim);
    if constexpr (keys_wanted) add_weighted<Shape>(grad_k, ds, queries, a.head_dim);
  }

  // Through the values for grad_k: the keys are needed again for a grad_v that comes apart.
  const int64_t token = piece.start + own.first;
  const int count = own.last - own.first + 1;
  if constexpr (keys_wanted)
    store_gradient<Shape>(grad_k, a.scale, memory.own[1], a.grad_k, token, kv_head, count, a.head_dim);
  if constexpr (values_wanted)
    store_gradient<Shape>(grad_v, 1.0f, memory.own[0], a.grad_v, token, kv_head, count, a.head_dim);
}

// The keys and values of a piece, and their gradients.
template <class Shape>
__device__ __forceinline__ void key_piece_gradients(const Backward<typename Shape::T>& a, const SequencePiece& piece,
                                                    int kv_head) {
  const int first = piece.index * Shape::own, left = piece.length - first;
  auto& memory = Shape::memory();
  load_head_rows<Shape::threads>(memory.own[0], a.k, piece.start + first, kv_head, left, a.head_dim);
  load_head_rows<Shape::threads>(memory.own[1], a.v, piece.start + first, kv_head, left, a.head_dim);
  if constexpr (Shape::apart) {
    key_gradients<Shape, Wanted::keys>(a, piece, kv_head);
    __syncthreads();  // all are done with the queries of the last steps
    key_gradients<Shape, Wanted::values>(a, piece, kv_head);
  } else {
    key_gradients<Shape, Wanted::both>(a, piece, kv_head);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
