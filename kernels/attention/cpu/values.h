// Values weighed where they lie, for a few rows: what multiply() of product.h gives of them, bit for bit. Included by this folder's sources only.
#pragma once

#include "kernels/attention/cpu/product.h"
#include "kernels/attention/cpu/row_groups.h"

namespace lathe::kernels::LATHE_ISA {

// head_dim elements of type T, a whole number of vectors.
template <class T>
struct ValuesInPlace {
  RowGroups rows;
};

// Vectors of a step's values as they are easiest to load, and sums of their products in the order of the columns.
template <class Step, class T, int V>
struct StepValues {
  static LATHE_IN_CLASS void load_row(const char* row, int64_t, Vec (&values)[V]) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) values[v] = load(reinterpret_cast<const T*>(row) + v * lanes);
  }
  static LATHE_IN_CLASS void order(Vec (&)[V]) {}
};
#if defined(LATHE_ISA_avx512_bf16)
// Of two rows at a time. Whole lines are interleaved within each 128 bits, and the sums put in order at the end: half the loads and
// no insertions, a fifth less time than rows joined and permuted, as the last 16 columns must be.
template <class T, int V>
struct StepValues<Pairs, T, V> {
  static LATHE_IN_CLASS void load_row(const char* row, int64_t stride, Vec (&values)[V]) {
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
  static LATHE_IN_CLASS void order(Vec (&sums)[V]) {
#pragma GCC unroll 4
    for (int v = 0; v + 1 < V; v += 2) {
      const Vec low = sums[v], high = sums[v + 1];
      sums[v] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
      sums[v + 1] = __builtin_shufflevector(low, high, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    }
  }
};
#endif

template <int R, int V, class Step, class T, class A>
LATHE_INLINE void weigh_block(Factor factor, const RowGroups& rows, int64_t begin, int64_t end, int64_t column,
                              float* c, int64_t c_row, A& ahead) {
  using Values = StepValues<Step, T, V>;
  constexpr int64_t group_steps = group_rows / Step::width;
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = zero();
  A asking = ahead;  // a copy stays in registers
  const int64_t stride = rows.stride, step_bytes = Step::width * stride;
  const float* a = factor.a + begin;
  for (int64_t k = begin; k < end;) {
    const int64_t group = k / group_steps;
    const char* row = rows.first[group] + k % group_steps * step_bytes + column * static_cast<int64_t>(sizeof(T));
    for (const int64_t stop = least(end, (group + 1) * group_steps); k < stop; ++k, ++a, row += step_bytes) {
      asking.ask();
      Vec right[V];
      Values::load_row(row, stride, right);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec left = splat(a[r * factor.row]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = Step::add(left, right[v], sum[r][v]);
      }
    }
  }
  ahead = asking;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    Values::order(sum[r]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + r * c_row + column + v * lanes, sum[r][v]);
  }
}

template <int R, class Step, class T, class A>
static void weigh_rows(Factor factor, const RowGroups& rows, int64_t begin, int64_t end, float* c, int64_t c_row,
                       int64_t columns, A& ahead) {
  int64_t column = 0;
  for (; column + block_vectors * lanes <= columns; column += block_vectors * lanes)
    weigh_block<R, block_vectors, Step, T>(factor, rows, begin, end, column, c, c_row, ahead);
  if constexpr (block_vectors == 4) {
    if (column + 2 * lanes <= columns) {
      weigh_block<R, 2, Step, T>(factor, rows, begin, end, column, c, c_row, ahead);
      column += 2 * lanes;
    }
  }
  for (; column < columns; column += lanes)
    weigh_block<R, 1, Step, T>(factor, rows, begin, end, column, c, c_row, ahead);
}

// As multiply().
template <Chain chain, class Step, class T, class A>
LATHE_INLINE void multiply(int rows, Factor factor, const ValuesInPlace<T>& values, int64_t begin, int64_t end,
                           float* c, int64_t c_row, int64_t columns, A& ahead) {
  static_assert(chain == Chain::starts);
  with_rows(rows,
            [&](auto r) { weigh_rows<r.count, Step, T>(factor, values.rows, begin, end, c, c_row, columns, ahead); });
}

}  // namespace lathe::kernels::LATHE_ISA
