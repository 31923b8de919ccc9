// One chunk of keys under a block of query rows: scores → (maximum m, sum l, output o) of each row, and the merge of
// that into what the earlier chunks gave. Every path of attention goes through these two functions, and every number
// in them has one order that the other rows, the number of keys present and the way they are stored do not touch:
//   score  one chain of fma along d, softcapped
//   m      the highest score in units of log 2, rounded once: what a weight's exponent is off by, all of a chunk are
//   l      the chunk's vectors of 2^(score − m) added one after another, then across lanes in a fixed tree
//   o      one chain of fma along the keys
//   merge  M = max(m, m'), a = 2^(m − M), b = 2^(m' − M), l·a + l'·b and o·a + o'·b by one fma each
// Where the CPU multiplies pairs of bf16, and queries, keys and values are bf16, both chains go by pairs, and the weights of
// the values are rounded to bf16 for it (l is the sum before).
// There too, bf16 queries over int8 pages are multiplied as whole numbers of 16 bits, and so are the weights of their values: both sums are
// exact, and rounded once (byte_digits.h).
// A masked key adds an exact 0, so a chunk that is partly filled gives the bits of one that is partly masked.
// Included by this folder's sources only.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/attention/cpu/byte_products.h"
#include "kernels/attention/cpu/scores.h"
#include "kernels/attention/cpu/tile.h"
#include "kernels/attention/cpu/values.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr float no_score = -__builtin_inff();

// Which keys of a chunk, [begin, end) among its 64, a row attends to; none when begin ≥ end.
struct KeySpan {
  int begin, end;
};

LATHE_INLINE KeySpan visible_keys(int64_t position, int64_t window, int64_t chunk) {
  int64_t end = position + 1 - chunk * attention_chunk;
  int64_t begin = window > 0 ? end - window : 0;
  if (end > attention_chunk) end = attention_chunk;
  if (end < 0) end = 0;
  if (begin < 0) begin = 0;
  if (begin > attention_chunk) begin = attention_chunk;
  return {static_cast<int>(begin), static_cast<int>(end)};
}

// Results of one block of rows in one chunk.
struct BlockResult {
  KeySpan span[block_rows];
  float* maximum;  // [16]
  float* sum;      // [16]
  float* out;      // [block_rows][padded_dim]
};

// 2^x for x ≤ 0, or above by a rounding: within 2.1 ulp, exactly 1 at 0, and 0 below −127, where results would be subnormal. A NaN stays
// one. The polynomial's largest relative error on [−1/2, 1/2] is 9.1e-8 (weighted least squares, first coefficient 1).
LATHE_INLINE Vec exp2_below_zero(Vec x) {
#if defined(LATHE_AVX512)
  const Vec kept = max(splat(-151.0f), x);
#else
  const Vec kept = max(splat(-127.0f), x);
#endif
  const Vec magic = splat(12582912.0f);  // 1.5·2^23: adding it rounds to the nearest integer
  const Vec shifted = kept + magic, n = shifted - magic, r = kept - n;
  Vec p = splat(1.32647273e-3f);
  p = fma(p, r, splat(9.67151299e-3f));
  p = fma(p, r, splat(5.55073358e-2f));
  p = fma(p, r, splat(2.40222424e-1f));
  p = fma(p, r, splat(6.93147004e-1f));
  p = fma(p, r, splat(1.0f));
#if defined(LATHE_AVX512)
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return p * (Vec)(((VecI)shifted + 127) << 23);  // magic's own bits leave by the shift
#endif
}

LATHE_INLINE VecI first_lanes() {
  VecI v;
  for (int i = 0; i < lanes; ++i) v[i] = i;
  return v;
}

// All ones in the lanes of vector v (of a chunk) that the span holds.
LATHE_INLINE VecI in_span(KeySpan span, int v, VecI lane) {
  const VecI key = lane + v * lanes;
  return (key >= span.begin) & (key < span.end);
}

LATHE_INLINE Vec capped(Vec score, float softcap) { return splat(softcap) * tanh(score * splat(1.0f / softcap)); }

// How a product q·k becomes a score, and a probability a value's weight. Scales [64] of the chunk's rows, or null: they
// are 1.
struct Scoring {
  float factor;  // of the score, in units of log 2
  float scale, softcap;
  const float *k_scales, *v_scales;
};

inline constexpr float log2_e = 1.44269504088896341f, log_2 = 0.693147180559945309f;

LATHE_INLINE Scoring scoring_of(float scale, float softcap, const float* k_scales, const float* v_scales) {
  return {softcap > 0 ? log2_e : scale * log2_e, scale, softcap, k_scales, v_scales};
}

// What a product is before its factor.
LATHE_INLINE Vec score_of(Vec product, const Scoring& scoring) {
  return scoring.softcap > 0 ? capped(product * splat(scoring.scale), scoring.softcap) : product;
}

// The first V vectors of products q·k in a row become 2^(score − maximum), 0 where masked; the values' scales are put on after the sum.
// With Pairs they are rounded to bf16: row[i] holds those of keys 2i and 2i + 1. All in registers where there are as many: in two passes
// over the row with a third that rounded, this took a fifth longer.
template <class Step, bool masked, int V, class A>
LATHE_INLINE void chunk_probabilities(float* row, KeySpan span, const Scoring& scoring, float* maximum, float* sum,
                                      A& ahead) {
  const VecI lane = first_lanes();
  Vec p[V];
  for (int v = 0; v < V; ++v) p[v] = load(row + v * lanes);
  if (scoring.k_scales != nullptr)
    for (int v = 0; v < V; ++v) p[v] = p[v] * load(scoring.k_scales + v * lanes);
  if (scoring.softcap > 0)
    for (int v = 0; v < V; ++v) p[v] = score_of(p[v], scoring);
  Vec highest = splat(no_score);
  for (int v = 0; v < V; ++v) {
    if (masked) p[v] = select(in_span(span, v, lane), p[v], splat(no_score));
    highest = max(p[v], highest);
  }
  ahead.ask();
  *maximum = max_lanes(highest) * scoring.factor;
  Vec total = zero();
  for (int v = 0; v < V; ++v) {
    p[v] = exp2_below_zero(fma(p[v], splat(scoring.factor), splat(-*maximum)));
    if (masked) p[v] = select(in_span(span, v, lane), p[v], zero());
    total = total + p[v];
    ahead.ask();
  }
  *sum = sum_lanes(total);
  if (scoring.v_scales != nullptr)
    for (int v = 0; v < V; ++v) p[v] = p[v] * load(scoring.v_scales + v * lanes);
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Step::width == 4) return store_weight_digits(row, p);
  if constexpr (Step::width == 2) {
    for (int v = 0; v < V; v += 2)
      store(row + v / 2 * lanes, (Vec)neighbours_to_pairs(p[v], v + 1 < V ? p[v + 1] : zero()));
    return;
  }
#endif
  for (int v = 0; v < V; ++v) store(row + v * lanes, p[v]);
}

// How often that asks ahead, of 64 keys.
inline constexpr int64_t probability_asks = 1 + attention_chunk / lanes;

// Of the first 16, 32, 48 or 64 keys.
template <class Step, bool masked, class A>
LATHE_INLINE void chunk_probabilities(float* row, int64_t keys, KeySpan span, const Scoring& scoring, float* maximum,
                                      float* sum, A& ahead) {
  constexpr int V = tile_padding / lanes;
  switch (keys / tile_padding) {
    case 1: return chunk_probabilities<Step, masked, V>(row, span, scoring, maximum, sum, ahead);
    case 2: return chunk_probabilities<Step, masked, 2 * V>(row, span, scoring, maximum, sum, ahead);
    case 3: return chunk_probabilities<Step, masked, 3 * V>(row, span, scoring, maximum, sum, ahead);
    case 4: return chunk_probabilities<Step, masked, 4 * V>(row, span, scoring, maximum, sum, ahead);
  }
}

// Floats from one query row of a few to the next in scratch.
template <class Step>
LATHE_INLINE int64_t query_row(int64_t padded_dim) {
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Step::width == 4) return byte_query_row(padded_dim);
#endif
  return padded_dim;
}

// q: rows of scratch, query_row() apart; keys as scores.h says; values through V's rows; p: scratch [rows][64]. With Pairs, q's rows hold
// head_dim / 2 pairs, and a row of the values is of two keys.
// Values must be finite even where masked: 0 · infinity is not 0.
template <class Step, class K, class V, class A>
LATHE_INLINE void attend_block(int rows, const float* q, K keys, V values, int64_t head_dim, int64_t padded_dim,
                               const Scoring& scoring, float* p, const BlockResult& result, A& ahead) {
  int begin = attention_chunk, end = 0;
  for (int r = 0; r < rows; ++r) {
    if (result.span[r].begin >= result.span[r].end) continue;
    if (result.span[r].begin < begin) begin = result.span[r].begin;
    if (result.span[r].end > end) end = result.span[r].end;
  }
  if (begin >= end) return;
  const int64_t keys_wanted = (end + tile_padding - 1) / tile_padding * tile_padding;
  score<Step>(rows, Factor{q, query_row<Step>(padded_dim), 1}, keys, head_dim / Step::width, keys_wanted, p, ahead);
  for (int r = 0; r < rows; ++r) {
    const KeySpan span = result.span[r];
    float* row = p + r * attention_chunk;
    if (span.begin == 0 && span.end == keys_wanted) {
      chunk_probabilities<Step, false>(row, keys_wanted, span, scoring, result.maximum + r, result.sum + r, ahead);
    } else {
      chunk_probabilities<Step, true>(row, keys_wanted, span, scoring, result.maximum + r, result.sum + r, ahead);
    }
  }
  multiply<Chain::starts, Step>(rows, Factor{p, attention_chunk, 1}, values, begin / Step::width,
                                (end + Step::width - 1) / Step::width, result.out, padded_dim, padded_dim, ahead);
}

// What the chunks so far gave for a tile's rows. Before the first: maximum −inf, sum 0, out 0.
struct RowStates {
  float* maximum;
  float* sum;
  float* out;  // [rows][padded_dim]
};

LATHE_INLINE void merge_block(int rows, const BlockResult& chunk, const RowStates& state, int64_t padded_dim) {
  float before[tile_padding], after[tile_padding];
  // The rows past the block's are computed on whatever lies there and dropped.
  for (int r = 0; r < block_rows; r += lanes) {
    const Vec m = load(state.maximum + r), m_chunk = load(chunk.maximum + r);
    const Vec highest = max(m_chunk, m);
    store(before + r, exp2_below_zero(m - highest));
    store(after + r, exp2_below_zero(m_chunk - highest));
  }
  for (int r = 0; r < rows; ++r) {
    if (chunk.span[r].begin >= chunk.span[r].end) continue;
    const float a = before[r], b = after[r];
    if (chunk.maximum[r] > state.maximum[r]) state.maximum[r] = chunk.maximum[r];
    state.sum[r] = fma(state.sum[r], a, chunk.sum[r] * b);
    float* out = state.out + r * padded_dim;
    const float* out_chunk = chunk.out + r * padded_dim;
    for (int64_t d = 0; d < padded_dim; d += lanes)
      store(out + d, fma(load(out + d), splat(a), load(out_chunk + d) * splat(b)));
  }
}

}  // namespace lathe::kernels::LATHE_ISA
