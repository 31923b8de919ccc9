// The online softmax: one chunk of keys gives each query row a (maximum m, sum l, output o), which is merged into what
// the earlier chunks gave. Every number has one order, which the other rows, the number of keys present and the way
// they are stored do not touch; so all bodies of attention give the same bits:
//   score  one chain of fma along d, softcapped
//   m      the highest score in units of log 2, rounded once: an error in it is the same in every weight of the chunk
//   l      the chunk's vectors of 2^(score − m) added one after another, then across lanes in a fixed tree
//   o      one chain of fma along the keys
//   merge  M = max(m, m'), a = 2^(m − M), b = 2^(m' − M), l·a + l'·b and o·a + o'·b by one fma each
// Where the CPU multiplies pairs of bf16, and queries, keys and values are bf16, both chains go by pairs, and the
// weights of the values are rounded to bf16 for it (l is the sum before). There too, bf16 queries over int8 pages are
// quantised to 16 bits, and so are the weights of their values: both sums are exact, and rounded once
// (int8_pages/quantised.h). A masked key adds an exact 0, so a chunk that is partly filled gives the bits of one that
// is partly masked.
#pragma once

#include "kernels/attention/cpu/arguments.h"
#include "kernels/attention/cpu/products.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr float no_score = -__builtin_inff();
inline constexpr float log2_e = 1.44269504088896341f, log_2 = 0.693147180559945309f;

// ---- masks ----

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

// Rounded up to row_padding keys, a whole number of vectors of every instruction set.
LATHE_INLINE int64_t padded_keys(int64_t keys) { return (keys + row_padding - 1) / row_padding * row_padding; }

// ---- scores and weights ----

// 2^x for x ≤ 0, or above by a rounding: within 2.1 ulp, exactly 1 at 0, and 0 below −127, where results would be
// subnormal. A NaN stays one. The polynomial's largest relative error on [−1/2, 1/2] is 9.1e-8 (weighted least squares,
// first coefficient 1).
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

// How a product q·k becomes a score, and a probability a value's weight. Scales [64] of the chunk's rows, or null: they
// are 1.
struct Scoring {
  float factor;  // of the score, in units of log 2
  float scale, softcap;
  const float *k_scales, *v_scales;
};

LATHE_INLINE Scoring scoring_of(const AttentionParams& params, const float* k_scales, const float* v_scales) {
  return {params.softcap > 0 ? log2_e : params.scale * log2_e, params.scale, params.softcap, k_scales, v_scales};
}

// What a product is before its factor.
LATHE_INLINE Vec score_of(Vec product, const Scoring& scoring) {
  if (!(scoring.softcap > 0)) return product;
  return splat(scoring.softcap) * tanh(product * splat(scoring.scale) * splat(1.0f / scoring.softcap));
}

// ---- merge ----

// What the chunks so far gave for a tile's rows. Before the first: maximum −inf, sum 0, out 0.
struct RowStates {
  float* maximum;
  float* sum;
  float* out;  // [rows][padded_dim]
};

// One chunk's results for a block of rows.
struct ChunkResult {
  KeySpan span[block_rows];
  float* maximum;  // [row_padding]
  float* sum;      // [row_padding]
  float* out;      // [block_rows][padded_dim]
};

// Rows that see nothing of the chunk keep their state.
LATHE_INLINE void merge_chunk(int rows, const ChunkResult& chunk, const RowStates& state, int64_t padded_dim) {
  float before[row_padding], after[row_padding];
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
