// Products of a few query rows with keys and values that are read in place. Many rows share keys that were transposed
// for them; up to block_rows read each key once and transpose it in registers: storing the transposed chunk and reading
// it again took a third of a decode step that finds its keys in the cache.
#pragma once

#include "kernels/attention/cpu/key_addresses.h"
#include "kernels/attention/cpu/scratch_rows.h"

namespace lathe::kernels::LATHE_ISA {

// ---- scores: p[r][key], each one chain along d ----

// Keys as [head_dim / Dot::width][64].
struct TransposedKeys {
  const float* keys;
};
// T: what a row is made of; with Bf16Dot float, whose bits are a pair. Rows are whole strips of 16 bytes.
template <class T>
struct KeysInPlace {
  RowRuns rows;
};

template <class Dot, class Prefetch>
LATHE_INLINE void score(int rows, Factor q, TransposedKeys keys, int64_t steps, int64_t key_count, float* p,
                        Prefetch&) {
  multiply<Chain::starts, Dot>(rows, q, StridedRows{keys.keys, transposed_row}, 0, steps, p, transposed_row, key_count);
}

template <int R, int V, class Dot, class T, class Prefetch>
LATHE_INLINE void score_block(Factor q, const RowRuns& keys, int64_t key, int64_t steps, float* p, Prefetch& prefetch) {
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = zero();
  const char* from[V];
  for (int v = 0; v < V; ++v) {
    const int64_t first = key + v * lanes;
    from[v] = keys.first[first / run_rows] + first % run_rows * keys.stride;
  }
  const int64_t stride = keys.stride;
  Prefetch local = prefetch;  // a copy stays in registers
  for (int64_t d = 0; d < steps; d += strip_columns<T>) {
    // Both vectors side by side: one after the other, the compiler keeps a strip's broadcast queries for the second, in
    // memory.
    Vec words[V][4];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      local.step();
      transpose_words(from[v] + d * static_cast<int64_t>(sizeof(T)), stride, words[v]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
      for (int c = 0; c < word_columns<T>; ++c) {
        Vec columns[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) columns[v] = column_of(words[v][i], c, T{});
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const Vec left = splat(q.a[r * q.row_stride + d + i * word_columns<T> + c]);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sum[r][v] = Dot::add(left, columns[v], sum[r][v]);
        }
      }
    }
  }
  prefetch = local;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(p + r * transposed_row + key + v * lanes, sum[r][v]);
}

template <int R, class Dot, class T, class Prefetch>
static void score_rows(Factor q, const KeysInPlace<T>& keys, int64_t steps, int64_t key_count, float* p,
                       Prefetch& prefetch) {
  int64_t key = 0;
  for (; key + 2 * lanes <= key_count; key += 2 * lanes)
    score_block<R, 2, Dot, T>(q, keys.rows, key, steps, p, prefetch);
  if (key < key_count) score_block<R, 1, Dot, T>(q, keys.rows, key, steps, p, prefetch);
}

template <class Dot, class T, class Prefetch>
LATHE_INLINE void score(int rows, Factor q, const KeysInPlace<T>& keys, int64_t steps, int64_t key_count, float* p,
                        Prefetch& prefetch) {
  with_rows(rows, [&](auto r) { score_rows<r.count, Dot>(q, keys, steps, key_count, p, prefetch); });
}

// ---- values weighed: what multiply() of products.h gives of them, bit for bit ----

// head_dim elements of type T, a whole number of vectors.
template <class T>
struct ValuesInPlace {
  RowRuns rows;
};

// The values of one k in the order in which they are easiest to load, and how sums of their products get the columns'
// order.
template <class Dot, class T, int V>
struct ValueVectors {
  [[gnu::always_inline]] static void load_row(const char* row, int64_t, Vec (&values)[V]) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) values[v] = load(reinterpret_cast<const T*>(row) + v * lanes);
  }
  [[gnu::always_inline]] static void order(Vec (&)[V]) {}
};
#if defined(LATHE_ISA_avx512_bf16)
// Two rows at a time. Whole cache lines are interleaved within each 128 bits, and the sums put in order at the end:
// half the loads and no insertions, a fifth less time than rows joined and permuted, as the last 16 columns must be.
template <class T, int V>
struct ValueVectors<Bf16Dot, T, V> {
  [[gnu::always_inline]] static void load_row(const char* row, int64_t stride, Vec (&values)[V]) {
#pragma GCC unroll 4
    for (int v = 0; v + 1 < V; v += 2) {
      const __m512i first = _mm512_loadu_si512(row + v * 32), second = _mm512_loadu_si512(row + stride + v * 32);
      values[v] = (Vec)_mm512_unpacklo_epi16(first, second);
      values[v + 1] = (Vec)_mm512_unpackhi_epi16(first, second);
    }
    if constexpr (V % 2 == 1) {
      const auto half = [](const char* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); };
      const __m512i low = _mm512_castsi256_si512(half(row + (V - 1) * 32));
      values[V - 1] =
          (Vec)_mm512_permutexvar_epi16(pair_order(), _mm512_inserti64x4(low, half(row + stride + (V - 1) * 32), 1));
    }
  }
  [[gnu::always_inline]] static void order(Vec (&sums)[V]) {
#pragma GCC unroll 4
    for (int v = 0; v + 1 < V; v += 2) {
      const Vec low = sums[v], high = sums[v + 1];
      sums[v] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
      sums[v + 1] = __builtin_shufflevector(low, high, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    }
  }
};
#endif

template <int R, int V, class Dot, class T, class Prefetch>
LATHE_INLINE void weigh_block(Factor factor, const RowRuns& rows, int64_t begin, int64_t end, int64_t column, float* c,
                              int64_t c_row, Prefetch& prefetch) {
  using Values = ValueVectors<Dot, T, V>;
  constexpr int64_t run_steps = run_rows / Dot::width;
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = zero();
  Prefetch local = prefetch;  // a copy stays in registers
  const int64_t stride = rows.stride, step_bytes = Dot::width * stride;
  const float* a = factor.a + begin;
  for (int64_t k = begin; k < end;) {
    const int64_t group = k / run_steps;
    const char* row = rows.first[group] + k % run_steps * step_bytes + column * static_cast<int64_t>(sizeof(T));
    for (const int64_t stop = least(end, (group + 1) * run_steps); k < stop; ++k, ++a, row += step_bytes) {
      local.step();
      Vec right[V];
      Values::load_row(row, stride, right);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec left = splat(a[r * factor.row_stride]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = Dot::add(left, right[v], sum[r][v]);
      }
    }
  }
  prefetch = local;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    Values::order(sum[r]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + r * c_row + column + v * lanes, sum[r][v]);
  }
}

template <int R, class Dot, class T, class Prefetch>
static void weigh_rows(Factor factor, const RowRuns& rows, int64_t begin, int64_t end, float* c, int64_t c_row,
                       int64_t columns, Prefetch& prefetch) {
  int64_t column = 0;
  for (; column + block_vectors * lanes <= columns; column += block_vectors * lanes)
    weigh_block<R, block_vectors, Dot, T>(factor, rows, begin, end, column, c, c_row, prefetch);
  if constexpr (block_vectors == 4) {
    if (column + 2 * lanes <= columns) {
      weigh_block<R, 2, Dot, T>(factor, rows, begin, end, column, c, c_row, prefetch);
      column += 2 * lanes;
    }
  }
  for (; column < columns; column += lanes)
    weigh_block<R, 1, Dot, T>(factor, rows, begin, end, column, c, c_row, prefetch);
}

// As multiply().
template <Chain chain, class Dot, class T, class Prefetch>
LATHE_INLINE void multiply(int rows, Factor factor, const ValuesInPlace<T>& values, int64_t begin, int64_t end,
                           float* c, int64_t c_row, int64_t columns, Prefetch& prefetch) {
  static_assert(chain == Chain::starts);
  with_rows(rows,
            [&](auto r) { weigh_rows<r.count, Dot, T>(factor, values.rows, begin, end, c, c_row, columns, prefetch); });
}

}  // namespace lathe::kernels::LATHE_ISA
