// A few quantised query rows with a chunk of int8 pages, whose rows are read in place.
#pragma once

#include "kernels/attention/cpu/int8_pages/quantised.h"
#include "kernels/attention/cpu/prefetch.h"
#include "kernels/simd/transpose.h"

#if defined(LATHE_ISA_avx512_bf16)
namespace lathe::kernels::LATHE_ISA {

// Keys and values of head_dim bytes, a multiple of quantised_dim_step.
struct Int8Keys {
  RowRuns rows;
};
struct Int8Values {
  RowRuns rows;
};

// A query's row in scratch: for each 16 elements 4 times the high bytes and 4 times the low ones; then its QueryScale.
// To repeat them by vbroadcasti32x4 when they are wanted takes the pipes that sum and shuffle.
constexpr int64_t quantised_query_row(int64_t dim) { return 2 * dim + lanes; }  // floats
LATHE_INLINE const QueryScale& query_scale(const float* row, int64_t dim) {
  return *reinterpret_cast<const QueryScale*>(row + 2 * dim);
}
LATHE_INLINE void load_quantised_query(const bf16* from, int64_t dim, float* row) {
  alignas(64) int8_t high[quantised_dim_most], low[quantised_dim_most];
  *reinterpret_cast<QueryScale*>(row + 2 * dim) = quantise_query(from, dim, high, low);
  const auto repeated = [](const int8_t* bytes) {
    return (Vec)_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  };
  for (int64_t d = 0; d < dim; d += quantised_dim_step, row += 2 * lanes) {
    store(row, repeated(high + d));
    store(row + lanes, repeated(low + d));
  }
}

// Each quarter of a vector holds 16 bytes of one of four keys, and a query's, so that a key's sum is spread over four
// lanes, which are added up at the end. Transposing words as for the other types took a quarter longer.
template <int R>
LATHE_INLINE void add_quarters(const VecI (&sums)[R][4], int r, VecI& out) {
  const VecI* const t = sums[r];
  const auto low = [](VecI a, VecI b) { return (VecI)interleave_lower((Vec)a, (Vec)b); };
  const auto high = [](VecI a, VecI b) { return (VecI)interleave_upper((Vec)a, (Vec)b); };
  const VecI first = add_integers(low(t[0], t[1]), high(t[0], t[1])),
             second = add_integers(low(t[2], t[3]), high(t[2], t[3]));
  out = add_integers((VecI)_mm512_unpacklo_epi64((__m512i)first, (__m512i)second),
                     (VecI)_mm512_unpackhi_epi64((__m512i)first, (__m512i)second));
}

// Keys i + 4q of sixteen, i in [first, first + V), into sums[·][i].
template <int R, int V, class Prefetch>
LATHE_INLINE void sum_keys(const char* from, int64_t stride, int first, const float* q, int64_t q_row, int64_t dim,
                           VecI (&sums)[R][4], Prefetch& prefetch) {
  VecI high[R][V], low[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) high[r][v] = low[r][v] = VecI{};
  for (int64_t d = 0; d < dim; d += quantised_dim_step) {
    for (int v = 0; v < V; v += 2) prefetch.step();
    VecI keys[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const char* const at = from + (first + v) * stride + d;
      keys[v] = (VecI)gather_quarters([=](int row) __attribute__((always_inline)) {
        return _mm_loadu_ps(reinterpret_cast<const float*>(at + row * stride));
      });
      keys[v] = to_unsigned_bytes(keys[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float* const bytes = q + r * q_row + 2 * d;
      VecI q_high = (VecI)load(bytes), q_low = (VecI)load(bytes + lanes);
      asm("" : "+v"(q_high), "+v"(q_low));  // or GCC loads them again for every key
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        high[r][v] = dot_bytes(keys[v], q_high, high[r][v]);
        low[r][v] = dot_bytes(keys[v], q_low, low[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][first + v] = join_bytes(high[r][v], low[r][v]);
}

template <int R, class Prefetch>
static void score_int8_rows(const float* q, int64_t q_row, const RowRuns& keys, int64_t dim, int64_t key_count,
                            float* p, Prefetch& prefetch) {
  constexpr int V = R > 2 ? 2 : 4;  // keys at a time: with 4, more than 2 rows do not fit the registers
  Prefetch local = prefetch;        // a copy stays in registers
  for (int64_t key = 0; key < key_count; key += run_rows) {
    VecI sums[R][4];
#pragma GCC unroll 4
    for (int first = 0; first < 4; first += V)
      sum_keys<R, V>(keys.first[key / run_rows], keys.stride, first, q, q_row, dim, sums, local);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const QueryScale query = query_scale(q + r * q_row, dim);
      VecI sum;
      add_quarters(sums, r, sum);
      store(p + r * 64 + key, to_float(subtract_integers(sum, VecI{} + query.zero_point)) * splat(query.scale));
    }
  }
  prefetch = local;
}

// Four rows of values interleaved, four bytes to a word, for 32 of 64 columns: 8·H … 8·H + 7 of every 16.
template <int H>
LATHE_INLINE void interleave_rows(const char* const (&rows)[4], __mmask64 there, VecI (&values)[2]) {
  __m512i row[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) row[i] = _mm512_maskz_loadu_epi8(there, rows[i]);
  const auto bytes = [](__m512i a, __m512i b) {
    return H == 0 ? _mm512_unpacklo_epi8(a, b) : _mm512_unpackhi_epi8(a, b);
  };
  const __m512i first = bytes(row[0], row[2]), second = bytes(row[1], row[3]);
  values[0] = (VecI)_mm512_unpacklo_epi16(first, second);
  values[1] = (VecI)_mm512_unpackhi_epi16(first, second);
}

// These 32 columns of c = the quantised weights p[R][64] · values.
template <int R, int H, class Prefetch>
LATHE_INLINE void weigh_half(const float* p, const RowRuns& rows, int64_t column, int64_t columns, float* c,
                             int64_t c_row, Prefetch& prefetch) {
  VecI high[R][2], low[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) high[r][v] = low[r][v] = VecI{};
  const char* from[4];
  for (int g = 0; g < 4; ++g) from[g] = rows.first[g] + column;
  const __mmask64 there = columns >= 64 ? ~__mmask64{0} : (__mmask64{1} << columns) - 1;
  for (int64_t j = 0; j < weight_words; ++j) {
    prefetch.step();
    VecI values[2];
    interleave_rows<H>(from, there, values);
    for (int g = 0; g < 4; ++g) from[g] += rows.stride;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto word = [&](int64_t i) {
        int32_t w;
        __builtin_memcpy(&w, p + r * 64 + i, sizeof w);
        return (VecI)_mm512_set1_epi32(w);
      };
      const VecI upper = word(j), lower = word(weight_words + j);
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        high[r][v] = dot_bytes(upper, values[v], high[r][v]);
        low[r][v] = dot_bytes(lower, values[v], low[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const Vec scale = splat(p[r * 64 + weight_scale_place]);
    const Vec a = to_float(join_bytes(high[r][0], low[r][0])) * scale,
              b = to_float(join_bytes(high[r][1], low[r][1])) * scale;
    const Vec ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const Vec cd = __builtin_shufflevector(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    float* const to = c + r * c_row + column + 8 * H;
    _mm256_storeu_ps(to, _mm512_castps512_ps256((__m512)ab));
    if (columns > 16) _mm256_storeu_ps(to + 16, _mm512_extractf32x8_ps((__m512)ab, 1));
    if (columns > 32) _mm256_storeu_ps(to + 32, _mm512_castps512_ps256((__m512)cd));
    if (columns > 48) _mm256_storeu_ps(to + 48, _mm512_extractf32x8_ps((__m512)cd, 1));
  }
}

template <int R, class Prefetch>
static void weigh_int8_rows(const float* p, const RowRuns& rows, int64_t dim, float* c, int64_t c_row,
                            Prefetch& prefetch) {
  Prefetch local = prefetch;
  for (int64_t column = 0; column < dim; column += 64) {
    weigh_half<R, 0>(p, rows, column, dim - column, c, c_row, local);
    weigh_half<R, 1>(p, rows, column, dim - column, c, c_row, local);
  }
  prefetch = local;
}

template <class Dot, class Prefetch>
LATHE_INLINE void score(int rows, Factor q, const Int8Keys& keys, int64_t steps, int64_t key_count, float* p,
                        Prefetch& prefetch) {
  with_rows(rows, [&](auto r) {
    score_int8_rows<r.count>(q.a, q.row_stride, keys.rows, steps * Dot::width, key_count, p, prefetch);
  });
}

// All of the chunk's values: masked weights are 0.
template <Chain chain, class Dot, class Prefetch>
LATHE_INLINE void multiply(int rows, Factor factor, const Int8Values& values, int64_t, int64_t, float* c, int64_t c_row,
                           int64_t columns, Prefetch& prefetch) {
  static_assert(chain == Chain::starts);
  with_rows(rows, [&](auto r) { weigh_int8_rows<r.count>(factor.a, values.rows, columns, c, c_row, prefetch); });
}

}  // namespace lathe::kernels::LATHE_ISA
#endif
