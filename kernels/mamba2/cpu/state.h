// What the passes of mamba2 on the CPU share. S, or its gradient, is walked in blocks of columns of P.
#pragma once

#include "kernels/mamba2/bodies.h"
#include "kernels/simd/column_block.h"

namespace lathe::kernels::LATHE_ISA::mamba2 {

using namespace column_block;

constexpr int64_t most_dim = most_mamba2_dim;
using State = MatrixBlock<most_dim>;

template <class T>
LATHE_INLINE float number_of(const Mamba2Weight& weight, int64_t i) {
  return column_block::number_of<T>(weight.data, weight.wide, i);
}

template <class T>
LATHE_INLINE void widen_row(float* to, const T* from, int64_t count) {
  for_row(count, [&](int64_t i, int n) { store_some(to + i, load_some(from + i, n), n); });
}

// Of a token's dt + dt_bias: Δ. (A NaN stays one.)
LATHE_INLINE Vec clamped(const Mamba2Inputs& in, Vec step) {
  const Vec least = splat(in.dt_min), most = splat(in.dt_max);
  step = select(step < least, least, step);
  return select(step > most, most, step);
}

// Of `count` tokens from row on: dt + dt_bias, Δ and γ.
template <class T>
LATHE_INLINE void load_steps(const Mamba2Inputs& in, int64_t head, int64_t row, int64_t count, float* raw, float* step,
                             float* gamma) {
  const float bias = number_of<T>(in.dt_bias, head);
  for (int64_t t = 0; t < count; ++t) raw[t] = static_cast<float>(row_of<T>(in.dt, row + t)[head]) + bias;
  const Vec rate = exp(splat(number_of<T>(in.A_log, head)));
  for_row(count, [&](int64_t t, int n) {
    const Vec own = clamped(in, softplus(load_some(raw + t, n)));
    store_some(step + t, own, n);
    store_some(gamma + t, exp(-(rate * own)), n);
  });
}

// What a head takes of up to so many tokens.
constexpr int64_t most_tokens = 16;
static_assert(token_chunk % most_tokens == 0);
struct alignas(64) Tokens {
  float b[most_tokens][most_dim], c[most_tokens][most_dim];
  float raw[most_tokens], step[most_tokens], gamma[most_tokens];

  template <class T>
  void load(const Mamba2Inputs& in, int64_t head, int64_t row, int64_t count) {
    for (int64_t t = 0; t < count; ++t) {
      const T* const xbc = row_of<T>(in.xbc, row + t);
      widen_row(b[t], xbc + in.b_column(head), in.state_size);
      widen_row(c[t], xbc + in.c_column(head), in.state_size);
    }
    load_steps<T>(in, head, row, count, raw, step, gamma);
  }
};

// A block of columns of one head of one sequence.
struct Place {
  int64_t sequence, head, column, count;
  int64_t begin, end;  // the sequence's rows

  // The chunk that has a row.
  LATHE_INLINE int64_t chunk_of(int64_t row) const {
    return first_token_chunk(sequence, begin) + (row - begin) / token_chunk;
  }
  LATHE_INLINE bool at_chunk_bound(int64_t row) const {
    return (row - begin) % token_chunk == 0 && row > begin && row < end;
  }
};

// body(place) for each block of parts [begin, end) of sequences that have rows.
template <class Body>
LATHE_INLINE void for_each_block(const Mamba2Inputs& in, const int32_t* bounds, int64_t begin, int64_t end,
                                 const Body& body) {
  const int64_t parts = mamba2_column_parts(in.head_dim);
  for (int64_t part = begin; part < end; ++part) {
    const int64_t sequence = part / parts / in.heads, head = part / parts % in.heads;
    const int64_t first = part % parts * mamba2_columns;
    const int64_t last = first + mamba2_columns < in.head_dim ? first + mamba2_columns : in.head_dim;
    if (bounds[sequence] == bounds[sequence + 1]) continue;
    for (int64_t column = first; column < last; column += width)
      body(Place{sequence, head, column, last - column < width ? last - column : width, bounds[sequence],
                 bounds[sequence + 1]});
  }
}

}  // namespace lathe::kernels::LATHE_ISA::mamba2
