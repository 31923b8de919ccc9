// What the passes of gated_delta on the CPU share. S, or its gradient, is walked in blocks of columns; sums along the
// columns are made of the transposed matrix (chunks.cpp).
#pragma once

#include "kernels/gated_delta/bodies.h"
#include "kernels/simd/column_block.h"

namespace lathe::kernels::LATHE_ISA::gated_delta {

using namespace column_block;

constexpr int64_t most_dim = most_gated_delta_dim;
// A block of S, of its gradient, or of one of them transposed.
using State = MatrixBlock<most_dim>;

template <class T>
LATHE_INLINE float inverse_length(const T* x, int64_t dim) {
  const float squares = row_sum(dim, [&](Vec partial, int64_t i, int n) {
    const Vec element = load_some(x + i, n);
    return fma(element, element, partial);
  });
  return 1.0f / __builtin_sqrtf(squares + 1e-6f);
}
LATHE_INLINE float q_scale(int64_t key_dim) { return 1.0f / __builtin_sqrtf(static_cast<float>(key_dim)); }

template <class T>
LATHE_INLINE void scale_row(float* to, const T* from, int64_t dim, float factor) {
  for_row(dim, [&](int64_t i, int n) { store_some(to + i, load_some(from + i, n) * splat(factor), n); });
}

// What a value head takes of up to so many tokens.
constexpr int64_t most_tokens = 16;
static_assert(token_chunk % most_tokens == 0);
struct alignas(64) Tokens {
  float q[most_tokens][most_dim], k[most_tokens][most_dim];
  float beta[most_tokens], gamma[most_tokens];
};

template <class T>
void load_tokens(Tokens& tokens, const GatedDeltaInputs& in, int64_t head, int64_t row, int64_t count) {
  const float dt_bias = number_of<T>(in.dt_bias, in.wide_dt_bias, head);
  float steps[most_tokens];
  for (int64_t t = 0; t < count; ++t) {
    const T* const qkv = row_of<T>(in.qkv, row + t);
    const T *const q = qkv + in.q_column(head), *const k = qkv + in.k_column(head);
    scale_row(tokens.q[t], q, in.key_dim, inverse_length(q, in.key_dim) * q_scale(in.key_dim));
    scale_row(tokens.k[t], k, in.key_dim, inverse_length(k, in.key_dim));
    tokens.beta[t] = static_cast<float>(row_of<T>(in.b, row + t)[head]);
    steps[t] = static_cast<float>(row_of<T>(in.a, row + t)[head]) + dt_bias;
  }
  const Vec rate = exp(splat(number_of<T>(in.A_log, in.wide_A_log, head)));
  for_row(count, [&](int64_t t, int n) {
    store_some(tokens.beta + t, sigmoid(load_some(tokens.beta + t, n)), n);
    store_some(tokens.gamma + t, exp(-(rate * softplus(load_some(steps + t, n)))), n);
  });
}

// A block of one value head of one sequence.
struct Place {
  int64_t sequence, head, column, count;
  int64_t begin, end;  // the sequence's rows
};

// The checkpoint of the chunk that has a row.
LATHE_INLINE int64_t chunk_of(const Place& place, int64_t row) {
  return first_token_chunk(place.sequence, place.begin) + (row - place.begin) / token_chunk;
}
LATHE_INLINE int64_t matrix_of_chunk(const GatedDeltaInputs& in, int64_t chunk, int64_t head) {
  return (chunk * in.value_heads + head) * in.key_dim * in.value_dim;
}
LATHE_INLINE bool at_chunk_bound(const Place& place, int64_t row) {
  return (row - place.begin) % token_chunk == 0 && row > place.begin && row < place.end;
}

// body(place) for each block of parts [begin, end) of `groups` groups of value heads, each `dim` wide. Of a place the
// body knows all but the rows.
template <class Body>
LATHE_INLINE void for_each_block(const GatedDeltaInputs& in, int64_t dim, int64_t begin, int64_t end,
                                 const Body& body) {
  const int64_t parts = gated_delta_parts(dim);
  for (int64_t part = begin; part < end; ++part) {
    const int64_t group = part / parts / in.value_heads, head = part / parts % in.value_heads;
    const int64_t first = part % parts * gated_delta_part;
    const int64_t last = first + gated_delta_part < dim ? first + gated_delta_part : dim;
    for (int64_t column = first; column < last; column += width)
      body(Place{group, head, column, last - column < width ? last - column : width, 0, 0});
  }
}

LATHE_INLINE void set_rows(Place& place, const int32_t* bounds) {
  place.begin = bounds[place.sequence];
  place.end = bounds[place.sequence + 1];
}

}  // namespace lathe::kernels::LATHE_ISA::gated_delta
