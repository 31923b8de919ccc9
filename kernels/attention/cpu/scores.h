// Products q·k of a few rows with a chunk's keys: p[r][key], each one chain along d. Many rows share keys that were transposed for
// them; up to block_rows read each key once, where it lies, and turn it over in registers: storing the transposed chunk and reading it
// again took a third of a decode step that finds its keys in the cache. Included by this folder's sources only.
#pragma once

#include "kernels/attention/cpu/product.h"
#include "kernels/attention/cpu/row_groups.h"
#include "kernels/attention/cpu/transposed_rows.h"

namespace lathe::kernels::LATHE_ISA {

// Keys as [head_dim / Step::width][64].
struct TransposedKeys {
  const float* keys;
};
// T: what the rows hold; with Pairs, float: its bits are a pair. Rows are whole strips.
template <class T>
struct KeysInPlace {
  RowGroups rows;
};

template <class Step, class A>
LATHE_INLINE void score(int rows, Factor q, TransposedKeys keys, int64_t steps, int64_t key_count, float* p, A&) {
  multiply<Chain::starts, Step>(rows, q, EvenRows{keys.keys, transposed_row}, 0, steps, p, transposed_row, key_count);
}

template <int R, int V, class Step, class T, class A>
LATHE_INLINE void score_block(Factor q, const RowGroups& keys, int64_t key, int64_t steps, float* p, A& ahead) {
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = zero();
  const char* from[V];
  for (int v = 0; v < V; ++v) {
    const int64_t first = key + v * lanes;
    from[v] = keys.first[first / group_rows] + first % group_rows * keys.stride;
  }
  const int64_t stride = keys.stride;
  A asking = ahead;  // a copy stays in registers
  for (int64_t d = 0; d < steps; d += strip_columns<T>) {
    // Vector beside vector: one after the other, the compiler keeps a strip's broadcast queries for the second, in memory.
    Vec words[V][4];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      asking.ask();
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
          const Vec left = splat(q.a[r * q.row + d + i * word_columns<T> + c]);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sum[r][v] = Step::add(left, columns[v], sum[r][v]);
        }
      }
    }
  }
  ahead = asking;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(p + r * transposed_row + key + v * lanes, sum[r][v]);
}

template <int R, class Step, class T, class A>
static void score_rows(Factor q, const KeysInPlace<T>& keys, int64_t steps, int64_t key_count, float* p, A& ahead) {
  int64_t key = 0;
  for (; key + 2 * lanes <= key_count; key += 2 * lanes) score_block<R, 2, Step, T>(q, keys.rows, key, steps, p, ahead);
  if (key < key_count) score_block<R, 1, Step, T>(q, keys.rows, key, steps, p, ahead);
}

template <class Step, class T, class A>
LATHE_INLINE void score(int rows, Factor q, const KeysInPlace<T>& keys, int64_t steps, int64_t key_count, float* p,
                        A& ahead) {
  with_rows(rows, [&](auto r) { score_rows<r.count, Step>(q, keys, steps, key_count, p, ahead); });
}

}  // namespace lathe::kernels::LATHE_ISA
