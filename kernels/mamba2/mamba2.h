// The recurrence of Mamba-2 (Dao and Gu 2024, "Transformers are SSMs"; transformers' mamba2_chunk_scan), which mixes
// the tokens of a layer in place of attention: each head has a state S [N, P] that decays, and to which a token adds.
// With x [P] of a head, B and C [N] of its group and dt of token t, and S = 0 before a sequence's first token:
//   Δ = clamp(softplus(dt + dt_bias), dt_min, dt_max),   γ = exp(−exp(A_log) Δ)
//   S_t = γ S_{t−1} + B (Δ x)ᵀ,   out_t = S_tᵀ C + D x
// in f32 (f64 for f64), rounded once. Tokens go one by one, in every body and in training as in serving: sums along N
// have one order that depends on N alone, and so a token's bits depend on the tokens before it alone.
#pragma once

#include <limits>

#include "core/tensor.h"
#include "kernels/mamba2/heads.h"
#include "kernels/paged_attention/paged_batch.h"

namespace lathe::kernels {

// What every function reads. Rows are contiguous and of one dtype, f32 | bf16 | f16 | f64 (f64 on the CPU).
struct Mamba2 {
  Tensor xbc;                // [T, H P + 2 G N]: the heads of x, the groups of B and those of C side by side
  Tensor dt;                 // [T, H]
  Tensor A_log, D, dt_bias;  // [H], contiguous, each f32 or of the rows' dtype
  Mamba2Heads heads;
  float dt_min = 0.0f, dt_max = std::numeric_limits<float>::infinity();
};

// out [T, H P]. cu_seqlens i32 [S + 1] on the CPU cuts the rows into whole sequences. No output may be an input, here
// and below.
void mamba2_forward(const Tensor& out, const Mamba2& inputs, const Tensor& cu_seqlens);

// The gradients of everything, as those of the formula above (none goes through a clamp that holds); grad_xbc and
// grad_dt have the shapes and the dtype of xbc and dt. grad_A_log, grad_D and grad_dt_bias, f32 (f64) [H], are
// undefined where they are not wanted; they are added to: summed for each sequence and then over the sequences in
// order.
//
// Workspace: 8 N G ⌈H / 8 G⌉ + H N P / 8 bytes for each token, 8 H N P for each sequence and a little more, of as many
// sequences at a time as fit into 256 MiB, or of one.
void mamba2_backward(const Tensor& grad_xbc, const Tensor& grad_dt, const Tensor& grad_A_log, const Tensor& grad_D,
                     const Tensor& grad_dt_bias, const Tensor& grad_out, const Mamba2& inputs,
                     const Tensor& cu_seqlens);

// What that is for one sequence of so many tokens.
int64_t mamba2_workspace_bytes(const Mamba2Heads& heads, int64_t tokens);

// The forward of a step's new tokens. states f32 (f64) [slots, H, N, P], contiguous, on the rows' device, hold S of the
// sequences; batch.state_slot() says where a sequence's own lies, and batch.begins() that it starts at 0 whatever lies
// there. The bits are those of mamba2_forward over the whole sequences, however they are cut into steps. A batch
// without slots, or with one out of range, throws ShapeError; two of its sequences may not have one slot. A sequence
// without new tokens keeps its state.
void mamba2_step(const Tensor& out, const Tensor& states, const Mamba2& inputs, const PagedBatch& batch);

}  // namespace lathe::kernels
