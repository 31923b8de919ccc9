// What the bodies of gated_delta read and write, and how the backward is cut into passes.
//
// S's own gradient needs none of S: so one pass through the tokens has S (forward; v − S̃ᵀ k̂ is kept) and one its
// gradient (backward; δ's gradient is kept). With both known no token waits for a sum any more: the gradients of q̂ and
// k̂, sums along Dv, are made by chunks of tokens, all at once, from S and its gradient at their bounds.
//
// γ's gradient wants S and its gradient together at each token. Within a chunk that begins with S₀ and after which S's
// gradient is E, both are sums of products of vectors. With D(s, t) = γ_{s+1} ⋯ γ_t, and D(0, t) and D(s, end) from and
// to the chunk's bounds, and g = −β grad_δ:
//   γ_t ∂L/∂γ_t = Σ_{s<t≤r} D(s, r) ((q̂_r · k̂_s) (grad_out_r · δ_s) + (k̂_r · k̂_s) (g_r · δ_s)),
// where S₀ is one s more, with q̂_rᵀ S₀ grad_out_r + k̂_rᵀ S₀ g_r in the place of the products, and E one r more, with
// k̂_sᵀ E δ_s; and ⟨S₀, E⟩ for both. (From token to token this changes by out · grad_out − v · grad_v, at hardly any
// cost; but where γ is small it then is a difference of nearly equal numbers.)
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/arguments/token_chunks.h"
#include "kernels/gated_delta/heads.h"
#include "kernels/simd/inline.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// What every body is told.
struct GatedDeltaInputs {
  DType dtype;  // f32 | bf16 | f16
  ConstMatrix qkv, a, b;
  const void *A_log, *dt_bias;
  bool wide_A_log, wide_dt_bias;  // f32, whatever the rows are
  int64_t key_heads, value_heads, key_dim, value_dim;

  LATHE_EITHER_INLINE int64_t q_column(int64_t head) const { return head / (value_heads / key_heads) * key_dim; }
  LATHE_EITHER_INLINE int64_t k_column(int64_t head) const { return key_heads * key_dim + q_column(head); }
  LATHE_EITHER_INLINE int64_t v_column(int64_t head) const { return 2 * key_heads * key_dim + head * value_dim; }
};

struct GatedDeltaForwardArgs : GatedDeltaInputs {
  Matrix out;  // not there in the backward's first pass
  const int32_t* bounds;
  int64_t sequences;
  // A step's; null: whole sequences, whose bounds are on the host. f32 [slots][Hv][Dk][Dv].
  float* states;
  const int32_t *contexts, *slots;
  // What the backward keeps, and otherwise null.
  float *missing, *chunk_states;
};

// f32, chunks counted as above.
struct GatedDeltaWorkspace {
  float *missing, *grad_delta;              // [T][Hv][Dv]: v − S̃ᵀ k̂, δ's gradient
  float *grad_q, *grad_k;                   // [T][Hv][Dk], of q̂ and k̂
  float *chunk_states, *chunk_grad_states;  // [chunks][Hv][Dk][Dv]: S before a chunk, but for the first; its gradient
                                            // after a chunk, but for the last
  float *of_state, *of_grad_state;  // [T][Hv][Dk / 8], summed: with S before the chunk, with its gradient after it
  float* bounds_product;            // [chunks][Hv][Dk]: ⟨S₀, E⟩ by rows
  float* chunk_sums;                // [chunks][Hv][2]: of the gradients of A_log and dt_bias
};

struct GatedDeltaBackwardArgs : GatedDeltaInputs {
  ConstMatrix grad_out;
  Matrix grad_qkv, grad_a, grad_b;
  float *grad_A_log, *grad_dt_bias;  // null: not wanted
  const int32_t* cu_seqlens;         // on the host
  int64_t sequences, rows;
  GatedDeltaWorkspace work;
};

// cpu/. Columns, or rows, of S are dealt out in parts of so many, head by head of each sequence, or chunk.
inline constexpr int64_t gated_delta_part = 64;
LATHE_EITHER_INLINE int64_t gated_delta_parts(int64_t dim) { return (dim + gated_delta_part - 1) / gated_delta_part; }

template <Isa>
void gated_delta_forward_parts(GatedDeltaForwardArgs args, int64_t begin, int64_t end);
template <Isa>
void gated_delta_grad_state_parts(GatedDeltaBackwardArgs args, int64_t begin, int64_t end);
template <Isa>
void gated_delta_chunk_parts(GatedDeltaBackwardArgs args, int64_t begin, int64_t end);
// The gradient of a, and its sums, for value heads of chunks; those of q, k, v and b for rows.
template <Isa>
void gated_delta_decay_heads(GatedDeltaBackwardArgs args, int64_t begin, int64_t end);
template <Isa>
void gated_delta_grad_rows(GatedDeltaBackwardArgs args, int64_t begin, int64_t end);

// cuda.cu, grad_state.cu, …: all of it, in the device's memory but for what is said to be on the host.
template <DeviceKind>
void gated_delta_forward_all(const GatedDeltaForwardArgs& args);
template <DeviceKind>
void gated_delta_grad_state_all(const GatedDeltaBackwardArgs& args);
template <DeviceKind>
void gated_delta_chunks_all(const GatedDeltaBackwardArgs& args);
template <DeviceKind>
void gated_delta_decay_all(const GatedDeltaBackwardArgs& args);  // and the sums over tokens
template <DeviceKind>
void gated_delta_grad_rows_all(const GatedDeltaBackwardArgs& args);

}  // namespace lathe::kernels
