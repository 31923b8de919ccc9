// Many quantised query rows with a chunk of int8 pages: rows in the lanes, with the bits of few_rows.h.
#pragma once

#include "kernels/attention/cpu/int8_pages/quantised.h"
#include "kernels/attention/cpu/transposed_queries.h"

#if defined(LATHE_ISA_avx512_bf16)
namespace lathe::kernels::LATHE_ISA {

// 64 quantised query rows transposed, in as many floats as they have elements: words of high bytes [dim / 4][64], of
// low ones, then the rows' zero points [64] and scales [64].
struct QuantisedQueries {
  float *high, *low, *zero_points, *scales;
};
LATHE_INLINE QuantisedQueries quantised_queries(float* transposed, int64_t dim) {
  const int64_t plane = dim / Int8Dot::width * transposed_row;
  return {transposed, transposed + plane, transposed + 2 * plane, transposed + 2 * plane + transposed_row};
}

// rows: bf16; scratch: 32 · dim floats.
static inline void load_quantised_queries(const void* const* rows, int64_t count, int64_t dim, float* scratch,
                                          float* out) {
  const QuantisedQueries queries = quantised_queries(out, dim);
  auto* const high = reinterpret_cast<int8_t*>(scratch);
  int8_t* const low = high + transposed_row * dim;
  const void *high_rows[transposed_row], *low_rows[transposed_row];
  for (int64_t r = 0; r < transposed_row; ++r) {
    const int64_t at = least(r, count - 1) * dim;
    high_rows[r] = high + at;
    low_rows[r] = low + at;
    if (r >= count) continue;
    const QueryScale scale = quantise_query(static_cast<const bf16*>(rows[r]), dim, high + at, low + at);
    __builtin_memcpy(queries.zero_points + r, &scale.zero_point, sizeof scale.zero_point);
    queries.scales[r] = scale.scale;
  }
  transpose_rows<float>(high_rows, count, dim / Int8Dot::width, queries.high);
  transpose_rows<float>(low_rows, count, dim / Int8Dot::width, queries.low);
}

template <>
inline void load_keys<int8_t, Int8Dot>(const void* const* rows, int64_t count, int64_t dim, float* out) {
  for (int64_t j = 0; j < count; ++j, out += key_row<Int8Dot>(dim))
    for (int64_t d = 0; d < dim; d += quantised_dim_step) {
      const auto* const from = reinterpret_cast<const __m128i*>(static_cast<const char*>(rows[j]) + d);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + d / Int8Dot::width),
                       _mm_xor_si128(_mm_loadu_si128(from), _mm_set1_epi8(-128)));
    }
}

// out[j][d] = elements d of rows j, j + 32, j + 16 and j + 48 of 64, as split_weights() puts the weights.
template <>
inline void load_values<int8_t, Int8Dot>(const void* const* rows, int64_t, int64_t dim, int64_t, float* out) {
  for (int64_t j = 0; j < weight_words; ++j, out += dim)
    for (int64_t d = 0; d < dim; d += quantised_dim_step) {
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
LATHE_INLINE void multiply_int8_keys(const float* key_rows, int64_t keys, float* transposed, int64_t rows, int64_t dim,
                                     FirstRow first_row, float* out, float* room) {
  const QuantisedQueries queries = quantised_queries(transposed, dim);
  multiply_keys<Int8Dot>(key_rows, keys, queries.high, rows, dim, first_row, out);
  multiply_keys<Int8Dot>(key_rows, keys, queries.low, rows, dim, first_row, room);
  for (int64_t row = 0; row < rows; row += lanes) {
    const VecI zero_point = (VecI)load(queries.zero_points + row);
    const Vec scale = load(queries.scales + row);
    for (int64_t key = 0; key < keys; ++key) {
      float *const high = out + key * transposed_row + row, *const low = room + key * transposed_row + row;
      store(high, to_float(subtract_integers(join_bytes((VecI)load(high), (VecI)load(low)), zero_point)) * scale);
    }
  }
}

// Quantises in place the weights p[key][64] of a vector of rows and V vectors of keys: rows [0, 16) become the words of
// high bytes, [16, 32) those of low ones, row 32 the scales.
template <int V>
LATHE_INLINE void quantise_weights(float* p) {
  Vec largest = zero();
  for (int key = 0; key < V * lanes; ++key) largest = max(load(p + key * transposed_row), largest);
  const Vec range = weight_range(largest), factor = weight_factor(range);
  for (int64_t j = 0; j < weight_words; ++j) {
    VecI integers[4]{};
    for (int v = 0; v < V; ++v) integers[v] = to_integers(load(p + (v * lanes + j) * transposed_row) * factor);
    const WeightBytes bytes = split_weights(integers);
    store(p + j * transposed_row, (Vec)bytes.high);
    store(p + (weight_words + j) * transposed_row, (Vec)bytes.low);
  }
  store(p + weight_scale_place * transposed_row, weight_scale(range));
}

// What load_values() gave, a fourth of the floats that values take, and room for 2 · block_rows · dim after it.
struct Int8Words {
  const float* words;
  float* room;
};

// multiply() of quantised weights, factor.a those of the first row, with all of the chunk's values: masked weights are
// 0.
template <Chain chain, class Dot>
LATHE_INLINE void multiply(int rows, Factor factor, Int8Words values, int64_t, int64_t, float* out, int64_t,
                           int64_t dim, MergeWeights weights) {
  float *const high = values.room, *const low = values.room + block_rows * dim;
  const StridedRows words{values.words, dim};
  const Factor low_bytes{factor.a + weight_words * factor.k_stride, factor.row_stride, factor.k_stride};
  multiply<Chain::starts, Dot>(rows, factor, words, 0, weight_words, high, dim, dim);
  multiply<Chain::starts, Dot>(rows, low_bytes, words, 0, weight_words, low, dim, dim);
  for (int r = 0; r < rows; ++r) {
    const Vec scale = splat(factor.a[weight_scale_place * factor.k_stride + r * factor.row_stride]);
    for (int64_t d = r * dim; d < (r + 1) * dim; d += lanes) {
      const Vec weighed = to_float(join_bytes((VecI)load(high + d), (VecI)load(low + d))) * scale;
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
