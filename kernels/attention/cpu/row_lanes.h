// What bodies with query rows in the lanes share: a chunk's keys and values as rows of scratch, products of those with rows that were
// turned over, and masks. Included by this folder's sources only.
#pragma once

#include "kernels/attention/cpu/chunk.h"
#include "kernels/attention/cpu/product.h"
#include "kernels/attention/cpu/transposed_rows.h"

namespace lathe::kernels::LATHE_ISA {

template <class T>
static inline void pad_values(const void* const* rows, int64_t count, int64_t dim, int64_t padded_dim, float* out) {
  for (int64_t j = 0; j < count; ++j, out += padded_dim)
    load_padded(static_cast<const T*>(rows[j]), dim, padded_dim, out);
}

// out[j][d] = elements d of rows 2j and 2j + 1; what is not there is 0.
template <class Step>
static inline void pair_values(const void* const* rows, int64_t count, int64_t dim, int64_t padded_dim, float* out) {
  const auto pairs = Step::template rows_in_place<bf16>(rows);
  const int64_t whole = dim / lanes * lanes, whole_rows = count / 2;
  for (int64_t j = 0; j < whole_rows; ++j)
    for (int64_t d = 0; d < whole; d += lanes) store(out + j * padded_dim + d, pairs.at(j, d));
  const auto rest = [&](int64_t row, int64_t d) -> VecH {
    const int left = static_cast<int>(least(lanes, dim - d));
    return row < count ? load_partial_bits(static_cast<const bf16*>(rows[row]) + d, left) : VecH{};
  };
  const auto put = [&](int64_t j, int64_t d) {
    store_words(out + j * padded_dim + d, make_pairs(rest(2 * j, d), rest(2 * j + 1, d)));
  };
  if (whole < padded_dim)
    for (int64_t j = 0; j < whole_rows; ++j) put(j, whole);
  if (count % 2 == 1)
    for (int64_t d = 0; d < padded_dim; d += lanes) put(whole_rows, d);
}

// A chunk's values as multiply() wants them for Step, zeros up to padded_dim.
template <class T, class Step>
LATHE_INLINE void load_values(const void* const* rows, int64_t count, int64_t dim, int64_t padded_dim, float* out) {
  if constexpr (Step::width == 2) {
    pair_values<Step>(rows, count, dim, padded_dim, out);
  } else {
    pad_values<T>(rows, count, dim, padded_dim, out);
  }
}

// Floats from one row of keys to the next in scratch, for products along d.
template <class Step>
LATHE_INLINE int64_t key_row(int64_t head_dim) {
  return padded_head_dim(head_dim / Step::width);
}
template <class T, class Step>
LATHE_INLINE void load_keys(const void* const* rows, int64_t count, int64_t head_dim, float* out) {
  pad_values<typename Step::template KeyElement<T>>(rows, count, head_dim / Step::width, key_row<Step>(head_dim), out);
}

// Rows turned over for products along d: out[d][64], d in pairs with Pairs. A vector that is not full repeats the last row.
template <class T, class Step>
LATHE_INLINE void load_turned(const void** rows, int64_t count, int64_t head_dim, float* out) {
  repeat_last_row(rows, count);
  NothingAhead nothing;
  transpose_rows<typename Step::template KeyElement<T>>(rows, count, head_dim / Step::width, out, nothing);
}

LATHE_INLINE int64_t whole_vectors(int64_t keys) { return (keys + tile_padding - 1) / tile_padding * tile_padding; }

// out[key][64] = key · row for the first `keys` keys and `rows` rows. Vectors of rows before first_row(key), the first that sees the
// key or a later one, keep what they held.
template <class Step, class FirstRow>
LATHE_INLINE void multiply_keys(const float* key_rows, int64_t keys, const float* turned, int64_t rows,
                                int64_t head_dim, FirstRow first_row, float* out) {
  const int64_t stride = key_row<Step>(head_dim), columns = (rows + lanes - 1) / lanes * lanes;
  for (int64_t key = 0; key < keys;) {
    const int count = next_block(keys - key);
    const int64_t first = first_row(key), skipped = first > 0 ? first / lanes * lanes : 0;
    if (skipped < columns)
      multiply<Chain::starts, Step>(count, Factor{key_rows + key * stride, stride, 1},
                                    EvenRows{turned + skipped, transposed_row}, 0, head_dim / Step::width,
                                    out + key * transposed_row + skipped, transposed_row, columns - skipped);
    key += count;
  }
}

template <int V>
struct Vectors {
  static constexpr int count = V;
};

// The keys that each lane's row sees.
struct SpanLanes {
  VecI begin, end;
  LATHE_IN_CLASS VecI holds(int key) const { return (begin <= key) & (end > key); }
};

// span_of(i) of the rows that a vector's lanes hold.
template <class SpanOf>
LATHE_INLINE SpanLanes span_lanes(SpanOf span_of) {
  SpanLanes span{};
  for (int i = 0; i < lanes; ++i) {
    const KeySpan one = span_of(i);
    span.begin[i] = one.begin;
    span.end[i] = one.end;
  }
  return span;
}

}  // namespace lathe::kernels::LATHE_ISA
