// The CUDA bodies of attention.h. Pointers are device memory unless said otherwise.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/attention/params.h"

namespace lathe::kernels {

inline constexpr int64_t attention_cuda_head_dim_most = 256;

struct AttentionForwardCuda {
  DType dtype;  // f32 | bf16 | f16
  HeadRows q, k, v, out;
  float* lse;  // [heads][T], lse_head apart; null: not wanted
  int64_t lse_head;
  const int32_t* cu_seqlens;  // on the host
  int64_t sequences;
  int64_t heads, kv_heads, head_dim;
  AttentionParams params;
};

struct AttentionBackwardCuda {
  DType dtype;
  HeadRows grad_q, grad_k, grad_v, grad_out, q, k, v, out;
  const float* lse;  // [heads][T], lse_head apart
  int64_t lse_head;
  float* dots;                // workspace [heads][tokens]
  const int32_t* cu_seqlens;  // on the host
  int64_t sequences, tokens;
  int64_t heads, kv_heads, head_dim;
  AttentionParams params;
};

// forward.cu. Takes attention_forward_warpgroups() where it can.
template <DeviceKind>
void attention_forward_tiles(const AttentionForwardCuda& args);
// forward_sm_90a.cu: the same with the same bits, by wgmma; only where attention_takes_warpgroups(): the card has it,
// D is 64, 96, 128 or 256, and keys and values lie as bulk copies want them.
template <DeviceKind>
bool attention_takes_warpgroups(const AttentionForwardCuda& args);
template <DeviceKind>
void attention_forward_warpgroups(const AttentionForwardCuda& args);

// backward.cu. Takes attention_backward_warpgroups() where it can.
template <DeviceKind>
void attention_backward_tiles(const AttentionBackwardCuda& args);
// backward_sm_90a.cu: the same with the same bits, by wgmma, of what `dots` already holds; only where
// attention_takes_warpgroups(): the card has it, D is 64, 96, 128 or 256, and q, grad_out, k and v lie as bulk copies
// want them. That of 256 is backward_wide_sm_90a.cu.
template <DeviceKind>
bool attention_takes_warpgroups(const AttentionBackwardCuda& args);
template <DeviceKind>
void attention_backward_warpgroups(const AttentionBackwardCuda& args);
template <DeviceKind>
void attention_backward_wide_warpgroups(const AttentionBackwardCuda& args);

}  // namespace lathe::kernels
