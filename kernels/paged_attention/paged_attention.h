// Attention of new tokens over keys and values kept in pages (Kwon et al. 2023), and the append that fills them.
//
// k_pages, v_pages [pages, kv_heads, page_size, D], dtype of q (f32 | bf16 | f64); attention_chunk % page_size == 0.
// Decode (one new token per sequence) and chunked prefill are one operation; its bits equal attention_forward's. Slots
// that no token was appended to are not read.
#pragma once

#include "core/tensor.h"
#include "kernels/attention/attention.h"

namespace lathe::kernels {

// q, out [T, heads, D]: the new tokens of S sequences, cut by cu_seqlens i32 [S + 1]. context_lens i32 [S]: keys of each
// sequence including its new tokens, which are the last ones. block_table i32 [S, max_pages]: the sequence's pages in
// order; entries past its length are not read. All index tensors on the CPU; an entry out of range throws ShapeError.
// A sequence without new tokens is allowed.
void paged_attention(const Tensor& out, const Tensor& q, const Tensor& k_pages, const Tensor& v_pages,
                     const Tensor& block_table, const Tensor& cu_seqlens, const Tensor& context_lens,
                     const AttentionParams& params);

// k, v [T, kv_heads, D], the last dimension contiguous, go to slots i64 [T] on the CPU: slot = page · page_size + offset.
// Slots are distinct (not checked); one out of range throws ShapeError.
void kv_append(const Tensor& k_pages, const Tensor& v_pages, const Tensor& k, const Tensor& v, const Tensor& slots);

// Whole pages, for copy-on-write: pages[to[i]] = pages[from[i]], i ascending. from, to i32 [n] on the CPU.
void kv_copy_pages(const Tensor& k_pages, const Tensor& v_pages, const Tensor& from, const Tensor& to);

}  // namespace lathe::kernels
