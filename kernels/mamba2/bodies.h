// What the bodies of mamba2 read and write, and how the backward is cut into passes.
//
// What a token adds to S does not depend on S. So two passes through the tokens, one from the first on and one from the
// last, keep S before each chunk of tokens, S₀, and its gradient after it, E; and then every chunk is done alone.
// Within it, with v = Δ x, D(s, r) = γ_{s+1} ⋯ γ_r, and D(0, r) and D(s, end) from and to its bounds:
//   grad_v_s = Σ_{r≥s} D(s, r) (C_r · B_s) grad_out_r + D(s, end) Eᵀ B_s
//   grad_B_s = Σ_{r≥s} D(s, r) (grad_out_r · v_s) C_r + D(s, end) E v_s
//   grad_C_r = Σ_{s≤r} D(s, r) (grad_out_r · v_s) B_s + D(0, r) S₀ grad_out_r
//   γ_t ∂L/∂γ_t = Σ_{s<t≤r} D(s, r) (C_r · B_s) (grad_out_r · v_s),
// where S₀ is one s more, with C_r · S₀ grad_out_r in the place of the products, and E one r more, with B_s · E v_s;
// and ⟨S₀, E⟩ for both. (From token to token the last one changes by out · grad_out − v · grad_v, at hardly any cost;
// but where γ is small it then is a difference of nearly equal numbers.)
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/arguments/token_chunks.h"
#include "kernels/mamba2/heads.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// A weight, which may be f32 whatever the rows are.
struct Mamba2Weight {
  const void* data;
  bool wide;
};

// What every body is told.
struct Mamba2Inputs {
  DType dtype;  // f32 | bf16 | f16
  ConstMatrix xbc, dt;
  Mamba2Weight A_log, D, dt_bias;
  int64_t heads, groups, head_dim, state_size;
  float dt_min, dt_max;

  LATHE_EITHER_INLINE int64_t heads_of_group() const { return heads / groups; }
  LATHE_EITHER_INLINE int64_t x_column(int64_t head) const { return head * head_dim; }
  LATHE_EITHER_INLINE int64_t b_column(int64_t head) const {
    return heads * head_dim + head / heads_of_group() * state_size;
  }
  LATHE_EITHER_INLINE int64_t c_column(int64_t head) const { return b_column(head) + groups * state_size; }
  // Of the states before, or after, chunks, or in slots.
  LATHE_EITHER_INLINE int64_t matrix_of_head(int64_t index, int64_t head) const {
    return (index * heads + head) * state_size * head_dim;
  }
};

struct Mamba2ForwardArgs : Mamba2Inputs {
  Matrix out;  // not there in the backward's first pass
  const int32_t* bounds;
  int64_t sequences;
  // A step's; null: whole sequences, whose bounds are on the host. f32 [slots][H][N][P].
  float* states;
  const int32_t *contexts, *slots;
  float* chunk_states;  // what the backward keeps, and otherwise null
};

// A chunk's heads are done in parts of so many of one group, whose gradients of B and C are summed in order.
inline constexpr int64_t mamba2_part_heads = 8;
struct Mamba2Part {
  int64_t begin, end;  // heads
};
LATHE_EITHER_INLINE int64_t mamba2_parts_of_group(int64_t heads_of_group) {
  return (heads_of_group + mamba2_part_heads - 1) / mamba2_part_heads;
}
LATHE_EITHER_INLINE Mamba2Part mamba2_part(const Mamba2Inputs& in, int64_t part) {
  const int64_t of_group = mamba2_parts_of_group(in.heads_of_group()), group = part / of_group;
  const int64_t begin = group * in.heads_of_group() + part % of_group * mamba2_part_heads;
  const int64_t end = begin + mamba2_part_heads, last = (group + 1) * in.heads_of_group();
  return {begin, end < last ? end : last};
}

// f32, chunks counted as in token_chunks.h.
struct Mamba2Workspace {
  float *chunk_states, *chunk_grad_states;  // [chunks][H][N][P]: S before a chunk, but for the first; its gradient
                                            // after a chunk, but for the last
  float *grad_b, *grad_c;                   // [T][parts][N]
  float* chunk_sums;                        // [chunks][H][3]: of the gradients of A_log, D and dt_bias
};

struct Mamba2BackwardArgs : Mamba2Inputs {
  ConstMatrix grad_out;
  Matrix grad_xbc, grad_dt;
  float* grad_weights[3];     // of A_log, D and dt_bias; null: not wanted
  const int32_t* cu_seqlens;  // on the host
  int64_t sequences, rows;
  Mamba2Workspace work;

  LATHE_EITHER_INLINE int64_t parts() const { return groups * mamba2_parts_of_group(heads_of_group()); }
};

// cpu/. Columns of S are dealt out in parts of so many, head by head of each sequence.
inline constexpr int64_t mamba2_columns = 64;
LATHE_EITHER_INLINE int64_t mamba2_column_parts(int64_t head_dim) {
  return (head_dim + mamba2_columns - 1) / mamba2_columns;
}

template <Isa>
void mamba2_forward_parts(Mamba2ForwardArgs args, int64_t begin, int64_t end);
template <Isa>
void mamba2_grad_state_parts(Mamba2BackwardArgs args, int64_t begin, int64_t end);
// Everything but the gradients of B and C, for parts of the heads of chunks, and then these, for rows.
template <Isa>
void mamba2_chunk_parts(Mamba2BackwardArgs args, int64_t begin, int64_t end);
template <Isa>
void mamba2_grad_rows(Mamba2BackwardArgs args, int64_t begin, int64_t end);

// cuda.cu, grad_state.cu, …: all of it, in the device's memory but for what is said to be on the host.
template <DeviceKind>
void mamba2_forward_all(const Mamba2ForwardArgs& args);
template <DeviceKind>
void mamba2_grad_state_all(const Mamba2BackwardArgs& args);
template <DeviceKind>
void mamba2_chunks_all(const Mamba2BackwardArgs& args);
template <DeviceKind>
void mamba2_grad_rows_all(const Mamba2BackwardArgs& args);  // and the sums over tokens

}  // namespace lathe::kernels
