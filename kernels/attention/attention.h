// Scaled-dot-product attention over packed sequences, causal, with grouped key/value heads (GQA), after
// FlashAttention-2 (Dao 2023).
//
// Keys are visited in chunks of attention_chunk counted from the sequence's start; each chunk's (max, sum, output) is
// merged in order. That order is shared with paged attention, so prefill, decode and training give the same bits.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

inline constexpr int64_t attention_chunk = 64;  // keys; a multiple of every KV page size in use

struct AttentionParams {
  float scale = 1.0f;    // of q·k, usually 1/√D
  int64_t window = 0;    // > 0: a query sees itself and the window − 1 keys before it
  float softcap = 0.0f;  // > 0: scores become softcap · tanh(score / softcap)
};

// q, out [T, heads, D]; k, v [T, kv_heads, D]; last dimension contiguous, others strided; f32 | bf16 | f64.
// lse f32 (f64) [heads, T]: natural log of the sum of exponentials, for the backward; may be undefined.
// cu_seqlens i32 [S + 1] on the CPU: the sequences' bounds among the T tokens. Scores, probabilities and sums are f32.
void attention_forward(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                       const Tensor& cu_seqlens, const AttentionParams& params);

// P = exp(S − lse), D = rowsum(grad_out ∘ out), dS = P ∘ (grad_out·vᵀ − D): grad_v = Pᵀ·grad_out, grad_k = dSᵀ·q · scale,
// grad_q = dS·k · scale. Each sequence's and head's sums run in index order; no atomics. Outputs are overwritten.
void attention_backward(const Tensor& grad_q, const Tensor& grad_k, const Tensor& grad_v, const Tensor& grad_out,
                        const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                        const Tensor& cu_seqlens, const AttentionParams& params);

}  // namespace lathe::kernels
