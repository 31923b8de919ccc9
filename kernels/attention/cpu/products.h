// The products of attention, a few rows at a time: c[r][·] (+)= Σ_k a[r][k] · b[k][·], each element one chain of fma
// over ascending k, so that its bits do not depend on which rows are computed together.
#pragma once

#include "core/dtype.h"
#include "kernels/attention/cpu/prefetch.h"
#include "kernels/simd/element.h"

namespace lathe::kernels::LATHE_ISA {

// 6 × 4 accumulators leave 8 of AVX-512's registers for b and the broadcast; 6 × 2 leave 4 of the others' 16.
inline constexpr int block_rows = 6;
#if defined(LATHE_AVX512)
inline constexpr int block_vectors = 4;
#else
inline constexpr int block_vectors = 2;
#endif

// The right factor: rows of b at an even distance …
struct StridedRows {
  const float* base;
  int64_t stride;
  [[gnu::always_inline]] Vec at(int64_t k, int64_t column) const { return load(base + k * stride + column); }
};
#if defined(LATHE_ISA_avx512_bf16)
// … or pairs of bf16 through a table of rows: row k interleaves the table's rows 2k and 2k + 1.
struct PairedRows {
  const void* const* rows;
  __m512i order;  // pair_order()
  [[gnu::always_inline]] Vec at(int64_t k, int64_t column) const {
    const auto half = [&](int64_t row) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const bf16*>(rows[row]) + column));
    };
    const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(half(2 * k)), half(2 * k + 1), 1);
    return (Vec)_mm512_permutexvar_epi16(order, both);
  }
};
// 0 16 1 17 …
LATHE_INLINE __m512i pair_order() {
  const VecU places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return (__m512i)(places | ((places + 16u) << 16));
}
#endif

// The left factor: a[r][k] is at a[r · row_stride + k · k_stride].
struct Factor {
  const float* a;
  int64_t row_stride, k_stride;
};

// What an element's chain does with what c holds: ignores it, goes on from it, or is scaled and added to it:
// c[r] · before[r] + chain · after[r].
enum class Chain { starts, continues, merges };
struct MergeWeights {
  const float *before, *after;
};

// How products are summed (Dot). Each k is a 32-bit word of `width` elements that are neighbours in the sum: one f32, a
// pair of bf16, or four bytes (Int8Dot, int8_pages/quantised.h).
struct F32Dot {
  static constexpr int64_t width = 1;
  // What transpose_rows() and load_keys() move of keys of type T.
  template <class T>
  using KeyWord = T;
  [[gnu::always_inline]] static Vec add(Vec left, Vec right, Vec sum) { return fma(left, right, sum); }
  // A left factor that is made in registers is stored transposed, two of its columns at a time, with as many to a word
  // …
  static constexpr int64_t columns_per_word = 1;
  [[gnu::always_inline]] static void store_columns(float* p, int64_t stride, Vec first, Vec second) {
    store(p, first);
    store(p + stride, second);
  }
  // … or as it is: a vector of one row, from column k on.
  [[gnu::always_inline]] static void store_row(float* row, int64_t k, Vec factors) { store(row + k, factors); }
};
#if defined(LATHE_ISA_avx512_bf16)
// Twice the products of fma in the same time; subnormals are taken for zero.
struct Bf16Dot {
  static constexpr int64_t width = 2;
  template <class T>
  using KeyWord = float;
  [[gnu::always_inline]] static PairedRows paired_rows(const void* const* rows) { return {rows, pair_order()}; }
  [[gnu::always_inline]] static Vec add(Vec left, Vec right, Vec sum) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
  }
  static constexpr int64_t columns_per_word = 2;
  [[gnu::always_inline]] static void store_columns(float* p, int64_t, Vec first, Vec second) {
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    store(p, (Vec)_mm512_permutexvar_epi16(pair_order(), halves));
  }
  [[gnu::always_inline]] static void store_row(float* row, int64_t k, Vec factors) {
    store(reinterpret_cast<bf16*>(row) + k, factors);
  }
};
#endif

template <int R, int V, Chain chain, class Dot, class B, class Prefetch>
LATHE_INLINE void multiply_block(Factor factor, B b, int64_t k_begin, int64_t k_end, float* c, int64_t c_row,
                                 int64_t column, Prefetch& prefetch, MergeWeights weights) {
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sum[r][v] = chain == Chain::continues ? load(c + r * c_row + column + v * lanes) : zero();
  const float* a = factor.a + k_begin * factor.k_stride;
  Prefetch local = prefetch;  // a copy stays in registers
  for (int64_t k = k_begin; k < k_end; ++k, a += factor.k_stride) {
    local.step();
    Vec right[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) right[v] = b.at(k, column + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec left = splat(a[r * factor.row_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = Dot::add(left, right[v], sum[r][v]);
    }
  }
  prefetch = local;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* const to = c + r * c_row + column + v * lanes;
      if constexpr (chain == Chain::merges) {
        store(to, fma(load(to), splat(weights.before[r]), sum[r][v] * splat(weights.after[r])));
      } else {
        store(to, sum[r][v]);
      }
    }
  }
}

template <int R, Chain chain, class Dot, class B, class Prefetch>
static void multiply_rows(Factor factor, B b, int64_t k_begin, int64_t k_end, float* c, int64_t c_row, int64_t columns,
                          Prefetch& prefetch, MergeWeights weights) {
  int64_t column = 0;
  for (; column + block_vectors * lanes <= columns; column += block_vectors * lanes)
    multiply_block<R, block_vectors, chain, Dot>(factor, b, k_begin, k_end, c, c_row, column, prefetch, weights);
  const int64_t left = (columns - column + lanes - 1) / lanes;
  if constexpr (block_vectors == 4) {
    if (left == 3)
      return multiply_block<R, 3, chain, Dot>(factor, b, k_begin, k_end, c, c_row, column, prefetch, weights);
    if (left == 2)
      return multiply_block<R, 2, chain, Dot>(factor, b, k_begin, k_end, c, c_row, column, prefetch, weights);
  }
  if (left == 1) multiply_block<R, 1, chain, Dot>(factor, b, k_begin, k_end, c, c_row, column, prefetch, weights);
}

// Calls body with an element of the type of keys and values, and the Dot of their products with the queries: that of
// pairs where they are wanted and can be.
template <class Body>
LATHE_INLINE void with_dot([[maybe_unused]] bool pairs, [[maybe_unused]] DType queries, DType keys,
                           [[maybe_unused]] int64_t head_dim, Body body) {
#if defined(LATHE_ISA_avx512_bf16)
  if (pairs && queries == DType::bf16 && keys == DType::bf16 && head_dim % 2 == 0) return body(bf16{}, Bf16Dot{});
#endif
  with_element(keys, [&](auto element) { body(element, F32Dot{}); });
}

LATHE_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// A row of dim elements into f32, zeros after it.
template <class T>
LATHE_INLINE void load_padded(const T* row, int64_t dim, int64_t padded_dim, float* out) {
  int64_t d = 0;
  for (; d + lanes <= dim; d += lanes) store(out + d, load(row + d));
  if (d < dim) {
    store(out + d, load_partial(row + d, static_cast<int>(dim - d)));
    d += lanes;
  }
  for (; d < padded_dim; d += lanes) store(out + d, zero());
}

// How many of the `remaining` rows the next product takes: 6, 4, 3, 2 or 1, for which there are bodies.
LATHE_INLINE int next_block(int64_t remaining) {
  return remaining >= block_rows ? block_rows : remaining >= 4 ? 4 : static_cast<int>(remaining);
}

template <int R>
struct Rows {
  static constexpr int count = R;
};
// Calls body with Rows<rows>, rows = next_block(…).
template <class Body>
LATHE_INLINE void with_rows(int rows, Body body) {
  switch (rows) {
    case 6: return body(Rows<6>{});
    case 4: return body(Rows<4>{});
    case 3: return body(Rows<3>{});
    case 2: return body(Rows<2>{});
    case 1: return body(Rows<1>{});
  }
}

// c's first `columns` (rounded up to whole vectors, in padded rows) for `rows` = next_block(…) rows.
template <Chain chain, class Dot, class B, class Prefetch>
LATHE_INLINE void multiply(int rows, Factor factor, B b, int64_t k_begin, int64_t k_end, float* c, int64_t c_row,
                           int64_t columns, Prefetch& prefetch, MergeWeights weights = {}) {
  with_rows(rows, [&](auto r) {
    multiply_rows<r.count, chain, Dot>(factor, b, k_begin, k_end, c, c_row, columns, prefetch, weights);
  });
}
template <Chain chain, class Dot, class B>
LATHE_INLINE void multiply(int rows, Factor factor, B b, int64_t k_begin, int64_t k_end, float* c, int64_t c_row,
                           int64_t columns, MergeWeights weights = {}) {
  NoPrefetch none;
  multiply<chain, Dot>(rows, factor, b, k_begin, k_end, c, c_row, columns, none, weights);
}

}  // namespace lathe::kernels::LATHE_ISA
