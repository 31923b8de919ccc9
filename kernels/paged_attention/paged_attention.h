// Attention of new tokens over keys and values kept in pages (Kwon et al. 2023), and the append that fills them.
//
// Decode (one new token per sequence) and chunked prefill are one operation. Over pages of q's dtype its bits equal
// attention_forward's; f32 queries over shorter pages give the bits of attention_forward over the rounded keys and
// values. Slots that no token was appended to may hold anything.
#pragma once

#include "core/tensor.h"
#include "kernels/attention/attention.h"
#include "kernels/paged_attention/paged_batch.h"

namespace lathe::kernels {

// One layer's keys and values, [pages, kv_heads, page_size, D] each: f32 | bf16 | f16 | i8 (f64 for the reference), the
// last dimension contiguous; attention_chunk % page_size == 0. i8 elements stand for element · scale, with one scale
// for each row (token and kv head) in f32 [pages, kv_heads, page_size], the last dimension contiguous, k_scales and
// v_scales with the same strides. On devices scales are contiguous, and so are pages that are copied.
struct KvPages {
  Tensor k, v;
  Tensor k_scales, v_scales;  // with i8 only
};

// q, out [T, heads, D], f32 | bf16 | f16 | f64, on the pages' device: the batch's new tokens. Scores, probabilities and
// sums are f32 (f64 for f64 q). With i8 a score is (q·k) · k_scale · params.scale, and a value's weight is p · v_scale,
// where p was already counted in the sum. Where the CPU sums products of bytes (AVX512-VNNI with bf16), bf16 queries
// and their weights of i8 values have 16 bits, relative to the largest of their row or chunk: a hundredth of the
// rounding of out at most; a query that is not finite then makes its row NaN. lse f32 (f64) [heads, T], the log-sum-exp
// of attention_forward, with its bits where out has them; may be undefined.
void paged_attention(const Tensor& out, const Tensor& q, const KvPages& pages, const PagedBatch& batch,
                     const AttentionParams& params, const Tensor& lse = {});

// For how many keys the kernels of a decoding step are launched where the longest sequence has `keys`: a power of two
// of chunks. Blocks beyond a sequence's own chunks leave at once, and no bit depends on it. A graph captured on a
// device serves every step of as many sequences, with a block table as wide, whose longest sequence is launched for as
// many keys.
int64_t paged_launched_keys(int64_t keys);

// The batch's new keys and values, k, v [T, kv_heads, D], f32 | bf16 | f16 | f64, the last dimension contiguous, go to
// the slots that the block table gives their positions, rounded to nearest even (beyond 65504 an f16 is infinite). A
// row becomes i8 by m = max |x|, scale = m / 127, round(x · (127 / m)), all in f32; with m < 2^-100 the row and its
// scale are 0. Values must be finite. Two sequences that share a page may not both append to it: copy it first.
void kv_append(const KvPages& pages, const Tensor& k, const Tensor& v, const PagedBatch& batch);

// Whole pages, for copy-on-write: page to[i] = page from[i], i ascending: a page may be copied on. from, to i32 [n] on
// the CPU; one out of range throws ShapeError. Of a layer that keeps one row for each token (kernels/short_conv), v is
// undefined.
void kv_copy_pages(const KvPages& pages, const Tensor& from, const Tensor& to);

}  // namespace lathe::kernels
