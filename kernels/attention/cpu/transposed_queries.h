// What the bodies with many query rows share, which have rows in the lanes: products of keys with transposed queries,
// and masks.
#pragma once

#include "kernels/attention/cpu/scratch_rows.h"
#include "kernels/attention/cpu/softmax.h"

namespace lathe::kernels::LATHE_ISA {

// The first row that sees key i of a chunk or a later one.
struct FirstRow {
  int64_t of_first_key, rows_per_key;
  [[gnu::always_inline]] int64_t of(int64_t key) const { return of_first_key + key * rows_per_key; }
};

// out[key][64] = key · row for the first `keys` keys and `rows` rows. Vectors of rows before first_row.of(key) keep
// what they held.
template <class Dot>
LATHE_INLINE void multiply_keys(const float* key_rows, int64_t keys, const float* transposed, int64_t rows,
                                int64_t head_dim, FirstRow first_row, float* out) {
  const int64_t stride = key_row<Dot>(head_dim), columns = (rows + lanes - 1) / lanes * lanes;
  for (int64_t key = 0; key < keys;) {
    const int count = next_block(keys - key);
    const int64_t first = first_row.of(key), skipped = first > 0 ? first / lanes * lanes : 0;
    if (skipped < columns)
      multiply<Chain::starts, Dot>(count, Factor{key_rows + key * stride, stride, 1},
                                   StridedRows{transposed + skipped, transposed_row}, 0, head_dim / Dot::width,
                                   out + key * transposed_row + skipped, transposed_row, columns - skipped);
    key += count;
  }
}

// The keys that each lane's row sees.
struct SpanLanes {
  VecI begin, end;
  [[gnu::always_inline]] VecI holds(int key) const { return (begin <= key) & (end > key); }
};

LATHE_INLINE SpanLanes span_lanes(const KeySpan (&spans)[lanes]) {
  SpanLanes result{};
  for (int i = 0; i < lanes; ++i) {
    result.begin[i] = spans[i].begin;
    result.end[i] = spans[i].end;
  }
  return result;
}

}  // namespace lathe::kernels::LATHE_ISA
