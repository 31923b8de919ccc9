// Many bf16 query rows with a chunk of int8 pages: rows in the lanes, with the bits of byte_products.h. Included by this folder's sources only.
#pragma once

#include "kernels/attention/cpu/byte_digits.h"
#include "kernels/attention/cpu/row_lanes.h"

#if defined(LATHE_ISA_avx512_bf16)
namespace lathe::kernels::LATHE_ISA {

// 64 query rows turned over, in as many floats as they have elements: words of high digits [dim / 4][64], of low ones, then the rows'
// offsets [64] and units [64].
struct TurnedDigits {
  float *high, *low, *offsets, *units;
};
LATHE_INLINE TurnedDigits turned_digits(float* turned, int64_t dim) {
  const int64_t plane = dim / Bytes::width * transposed_row;
  return {turned, turned + plane, turned + 2 * plane, turned + 2 * plane + transposed_row};
}

// rows: bf16; scratch: 32 · dim floats.
static inline void load_turned_digits(const void* const* rows, int64_t count, int64_t dim, float* scratch, float* out) {
  const TurnedDigits turned = turned_digits(out, dim);
  auto* const high = reinterpret_cast<int8_t*>(scratch);
  int8_t* const low = high + transposed_row * dim;
  const void *high_rows[transposed_row], *low_rows[transposed_row];
  for (int64_t r = 0; r < transposed_row; ++r) {
    const int64_t at = least(r, count - 1) * dim;
    high_rows[r] = high + at;
    low_rows[r] = low + at;
    if (r >= count) continue;
    const QueryUnit unit = split_query(static_cast<const bf16*>(rows[r]), dim, high + at, low + at);
    __builtin_memcpy(turned.offsets + r, &unit.offset, sizeof unit.offset);
    turned.units[r] = unit.unit;
  }
  NothingAhead nothing;
  transpose_rows<float>(high_rows, count, dim / Bytes::width, turned.high, nothing);
  transpose_rows<float>(low_rows, count, dim / Bytes::width, turned.low, nothing);
}

template <>
inline void load_keys<int8_t, Bytes>(const void* const* rows, int64_t count, int64_t dim, float* out) {
  for (int64_t j = 0; j < count; ++j, out += key_row<Bytes>(dim))
    for (int64_t d = 0; d < dim; d += byte_dim_unit) {
      const auto* const from = reinterpret_cast<const __m128i*>(static_cast<const char*>(rows[j]) + d);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + d / Bytes::width),
                       _mm_xor_si128(_mm_loadu_si128(from), _mm_set1_epi8(-128)));
    }
}

// out[j][d] = elements d of rows j, j + 32, j + 16 and j + 48 of 64, as split_weights() puts the weights.
template <>
inline void load_values<int8_t, Bytes>(const void* const* rows, int64_t, int64_t dim, int64_t, float* out) {
  for (int64_t j = 0; j < weight_words; ++j, out += dim)
    for (int64_t d = 0; d < dim; d += byte_dim_unit) {
      const auto row = [&](int64_t i) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const char*>(rows[j + i]) + d));
      };
      const __m128i low[2] = {_mm_unpacklo_epi8(row(0), row(32)), _mm_unpacklo_epi8(row(16), row(48))};
      const __m128i high[2] = {_mm_unpackhi_epi8(row(0), row(32)), _mm_unpackhi_epi8(row(16), row(48))};
      const __m128i columns[4] = {_mm_unpacklo_epi16(low[0], low[1]), _mm_unpackhi_epi16(low[0], low[1]),
                                  _mm_unpacklo_epi16(high[0], high[1]), _mm_unpackhi_epi16(high[0], high[1])};
      for (int i = 0; i < 4; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + d + 4 * i), columns[i]);
    }
}

// multiply_keys(), with room for as many floats again.
template <class FirstRow>
LATHE_INLINE void multiply_byte_keys(const float* key_rows, int64_t keys, float* turned, int64_t rows, int64_t dim,
                                     FirstRow first_row, float* out, float* room) {
  const TurnedDigits digits = turned_digits(turned, dim);
  multiply_keys<Bytes>(key_rows, keys, digits.high, rows, dim, first_row, out);
  multiply_keys<Bytes>(key_rows, keys, digits.low, rows, dim, first_row, room);
  for (int64_t row = 0; row < rows; row += lanes) {
    const VecI offset = (VecI)load(digits.offsets + row);
    const Vec unit = load(digits.units + row);
    for (int64_t key = 0; key < keys; ++key) {
      float *const high = out + key * transposed_row + row, *const low = room + key * transposed_row + row;
      store(high, to_float(subtract_whole(join_digits((VecI)load(high), (VecI)load(low)), offset)) * unit);
    }
  }
}

// The weights p[key][64] of a vector of rows and V vectors of keys become digits, in the same place: rows [0, 16) the words of high ones,
// [16, 32) of low ones, row 32 the units.
template <int V>
LATHE_INLINE void turn_to_digits(float* p) {
  Vec largest = zero();
  for (int key = 0; key < V * lanes; ++key) largest = max(load(p + key * transposed_row), largest);
  const Vec held = held_weight(largest), factor = weight_factor(held);
  for (int64_t j = 0; j < weight_words; ++j) {
    VecI whole[4]{};
    for (int v = 0; v < V; ++v) whole[v] = to_whole(load(p + (v * lanes + j) * transposed_row) * factor);
    const WeightDigits digits = split_weights(whole);
    store(p + j * transposed_row, (Vec)digits.high);
    store(p + (weight_words + j) * transposed_row, (Vec)digits.low);
  }
  store(p + weight_unit_place * transposed_row, weight_unit(held));
}

// What load_values() gave, a fourth of the floats that values take, and room for 2 · block_rows · dim after it.
struct ByteWords {
  const float* words;
  float* room;
};

// multiply() of such digits, `a` those of the first row. Weights that are masked are 0: every chunk is weighed whole.
template <Chain chain, class Step>
LATHE_INLINE void multiply(int rows, Factor factor, ByteWords values, int64_t, int64_t, float* out, int64_t,
                           int64_t dim, MergeWeights weights) {
  float *const high = values.room, *const low = values.room + block_rows * dim;
  const EvenRows words{values.words, dim};
  const Factor low_digits{factor.a + weight_words * factor.step, factor.row, factor.step};
  multiply<Chain::starts, Step>(rows, factor, words, 0, weight_words, high, dim, dim);
  multiply<Chain::starts, Step>(rows, low_digits, words, 0, weight_words, low, dim, dim);
  for (int r = 0; r < rows; ++r) {
    const Vec unit = splat(factor.a[weight_unit_place * factor.step + r * factor.row]);
    for (int64_t d = r * dim; d < (r + 1) * dim; d += lanes) {
      const Vec weighed = to_float(join_digits((VecI)load(high + d), (VecI)load(low + d))) * unit;
      if constexpr (chain == Chain::merges) {
        store(out + d, fma(load(out + d), splat(weights.before[r]), weighed * splat(weights.after[r])));
      } else {
        store(out + d, weighed);
      }
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
#endif
