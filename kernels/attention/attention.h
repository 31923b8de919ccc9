// Scaled-dot-product attention over packed sequences, causal, with grouped key/value heads (GQA), after
// FlashAttention-2 (Dao 2023).
//
// A query at position i of its sequence sees the keys 0 … i, or the last `window` of them; query head h reads kv head
// h · kv_heads / heads. Keys are visited in chunks of attention_chunk counted from the sequence's start; each chunk's
// (max, sum, output) is merged in order (kernels/attention/cpu/softmax.h). That order is shared with paged attention,
// so prefill, decode and training give the same bits.
#pragma once

#include "core/tensor.h"
#include "kernels/attention/params.h"

namespace lathe::kernels {

// q, out [T, heads, D]; k, v [T, kv_heads, D]; last dimension contiguous, others strided; f32 | bf16 | f16 | f64. out
// may not share memory with the inputs. lse f32 (f64) [heads, T]: natural log of the sum of exponentials, for the
// backward; may be undefined. cu_seqlens i32 [S + 1] on the CPU: the sequences' bounds among the T tokens; sequences
// may be empty.
struct AttentionForward {
  Tensor out, lse;
  Tensor q, k, v, cu_seqlens;
  AttentionParams params;
};

// Scores, probabilities and sums are f32 (f64 for f64). Values must be finite even where masked: a NaN or an infinity
// in v may reach the rows of its sequence's chunk that do not see it. No sequence's numbers reach another's.
void attention_forward(const AttentionForward& call);

// grad_q, grad_k and grad_v, of the shapes of q, k and v, are overwritten; they may not share memory with the inputs.
// The inputs are the forward's with what it gave, and grad_out [T, heads, D]. All must be finite, as in the forward: a
// NaN or an infinity may reach gradients of its sequence's rows that do not see it.
struct AttentionBackward {
  Tensor grad_q, grad_k, grad_v;
  Tensor grad_out, q, k, v, out, lse, cu_seqlens;
  AttentionParams params;
};

//   P = exp(S − lse), D = rowsum(grad_out ∘ out), dS = P ∘ (grad_out·vᵀ − D)
//   grad_v = Pᵀ·grad_out, grad_k = dSᵀ·q · scale, grad_q = dS·k · scale
// with a softcap dS is also times 1 − (score / softcap)². A key's sums run over the heads of its group, then over the
// queries, ascending; a query's over its keys; no atomics. D is taken from `out` as it was rounded.
void attention_backward(const AttentionBackward& call);

}  // namespace lathe::kernels
