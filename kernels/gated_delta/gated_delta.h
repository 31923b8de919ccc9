// The gated delta rule (Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks"; transformers' Qwen3_5GatedDeltaNet),
// which mixes the tokens of a layer in place of attention: each value head has a matrix S [Dk, Dv] that forgets, and in
// which a token corrects what is found at its key. With q, k, v, a and b of token t, and S = 0 before a sequence's
// first token:
//   q̂ = q / √(Σ q² + 1e-6) / √Dk,   k̂ = k / √(Σ k² + 1e-6)
//   β = σ(b),   γ = exp(−exp(A_log) · softplus(a + dt_bias))
//   S̃ = γ S_{t−1},   δ = β (v − S̃ᵀ k̂),   S_t = S̃ + k̂ δᵀ,   out_t = S_tᵀ q̂
// in f32 (f64 for f64), rounded once. Value head h goes by key head h / (Hv / Hk). Sums along Dk and Dv have one order
// that depends on these alone, and so a token's bits depend on the tokens before it alone.
#pragma once

#include "core/tensor.h"
#include "kernels/gated_delta/heads.h"
#include "kernels/paged_attention/paged_batch.h"

namespace lathe::kernels {

// What every function reads. Rows are contiguous and of one dtype, f32 | bf16 | f16 | f64 (f64 on the CPU).
struct GatedDelta {
  Tensor qkv;             // [T, 2 Hk Dk + Hv Dv]: the heads of q, of k and of v side by side
  Tensor a, b;            // [T, Hv]
  Tensor A_log, dt_bias;  // [Hv], contiguous, each f32 or of the rows' dtype
  GatedDeltaHeads heads;
};

// out [T, Hv Dv]. cu_seqlens i32 [S + 1] on the CPU cuts the rows into whole sequences. No output may be an input, here
// and below.
void gated_delta_forward(const Tensor& out, const GatedDelta& inputs, const Tensor& cu_seqlens);

// The gradients of everything, as those of the formula above; grad_qkv, grad_a and grad_b have the shapes and the dtype
// of qkv, a and b. grad_A_log and grad_dt_bias, f32 (f64) [Hv], are undefined where they are not wanted; they are added
// to: summed for each sequence and then over the sequences in order.
//
// Workspace: 4 Hv (2 Dk + 2 Dv + Dk Dv / 32 + Dk / 4) bytes for each token, 8 Hv Dk Dv for each sequence and a little
// more, of as many sequences at a time as fit into 256 MiB, or of one.
void gated_delta_backward(const Tensor& grad_qkv, const Tensor& grad_a, const Tensor& grad_b, const Tensor& grad_A_log,
                          const Tensor& grad_dt_bias, const Tensor& grad_out, const GatedDelta& inputs,
                          const Tensor& cu_seqlens);

// What that is for one sequence of so many tokens.
int64_t gated_delta_workspace_bytes(const GatedDeltaHeads& heads, int64_t tokens);

// The forward of a step's new tokens. states f32 (f64) [slots, Hv, Dk, Dv], contiguous, on the rows' device, hold S of
// the sequences; batch.state_slot() says where a sequence's own lies, and batch.begins() that it starts at 0 whatever
// lies there. The bits are those of gated_delta_forward over the whole sequences, however they are cut into steps. A
// batch without slots, or with one out of range, throws ShapeError; two of its sequences may not have one slot. A
// sequence without new tokens keeps its state.
void gated_delta_step(const Tensor& out, const Tensor& states, const GatedDelta& inputs, const PagedBatch& batch);

}  // namespace lathe::kernels
