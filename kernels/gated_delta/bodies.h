// What the bodies of gated_delta read and write, and how the backward is cut into passes.
//
// S's own gradient needs none of S: so one pass through the tokens has S (forward, from which v − S̃ᵀ k̂ is kept) and one
// its gradient (backward, from which δ's gradient is kept). With both known no token waits for a sum any more: the
// gradients of q̂ and k̂, sums along Dv, are made by chunks of tokens, all at once, from S and its gradient at their bounds.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/inline.h"
#include "kernels/simd/isa.h"

#if defined(__CUDACC__)
#define LATHE_GATED_DELTA_INLINE __host__ __device__ __forceinline__
#else
#define LATHE_GATED_DELTA_INLINE LATHE_INLINE
#endif

namespace lathe::kernels {

// Tokens, counted from a sequence's first.
inline constexpr int64_t gated_delta_chunk = 64;
// Chunk c of sequence s is the (first row of s / 64 + s + c)-th: a few of these numbers have no chunk.
LATHE_GATED_DELTA_INLINE int64_t gated_delta_first_chunk(int64_t sequence, int64_t first_row) {
  return first_row / gated_delta_chunk + sequence;
}
LATHE_GATED_DELTA_INLINE int64_t gated_delta_chunk_count(int64_t sequences, int64_t rows) {
  return gated_delta_first_chunk(sequences, rows);
}

// What every body is told.
struct GatedDeltaInputs {
  DType dtype;  // f32 | bf16 | f16
  ConstMatrix qkv, a, b;
  const void *A_log, *dt_bias;
  bool wide_A_log, wide_dt_bias;  // f32, whatever the rows are
  int64_t key_heads, value_heads, key_dim, value_dim;

  LATHE_GATED_DELTA_INLINE int64_t q_column(int64_t head) const { return head / (value_heads / key_heads) * key_dim; }
  LATHE_GATED_DELTA_INLINE int64_t k_column(int64_t head) const { return key_heads * key_dim + q_column(head); }
  LATHE_GATED_DELTA_INLINE int64_t v_column(int64_t head) const { return 2 * key_heads * key_dim + head * value_dim; }
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
  float* products;                          // [chunks][Hv][Dk]: after a chunk, of each row of S and its gradient
  float* changes;                           // [T][Hv]: of Λ (gated_delta.h)
  float* chunk_sums;                        // [chunks][Hv][2]: of the gradients of A_log and dt_bias, on devices
};

struct GatedDeltaBackwardArgs : GatedDeltaInputs {
  ConstMatrix grad_out;
  Matrix grad_qkv, grad_a, grad_b;
  float *grad_A_log, *grad_dt_bias;  // null: not wanted
  const int32_t* cu_seqlens;         // on the host
  int64_t sequences, rows;
  GatedDeltaWorkspace work;
};

// cpu.cpp. Columns, or rows, of S are dealt out in parts of so many, head by head of each sequence, or chunk.
inline constexpr int64_t gated_delta_part = 64;
LATHE_GATED_DELTA_INLINE int64_t gated_delta_parts(int64_t dim) {
  return (dim + gated_delta_part - 1) / gated_delta_part;
}

template <Isa>
void gated_delta_forward_parts(GatedDeltaForwardArgs args, int64_t begin, int64_t end);
template <Isa>
void gated_delta_grad_state_parts(GatedDeltaBackwardArgs args, int64_t begin, int64_t end);
template <Isa>
void gated_delta_chunk_parts(GatedDeltaBackwardArgs args, int64_t begin, int64_t end);
// Gradients of q, k, v and b of rows, of a and what is summed over tokens of value heads.
template <Isa>
void gated_delta_grad_rows(GatedDeltaBackwardArgs args, int64_t begin, int64_t end);
template <Isa>
void gated_delta_grad_decay_heads(GatedDeltaBackwardArgs args, int64_t begin, int64_t end);

// cuda.cu: all of it, in the device's memory but for what is said to be on the host.
template <DeviceKind>
void gated_delta_forward_all(const GatedDeltaForwardArgs& args);
template <DeviceKind>
void gated_delta_backward_all(const GatedDeltaBackwardArgs& args);

}  // namespace lathe::kernels
