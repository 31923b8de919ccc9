// The CUDA bodies of ceilings.h.
#pragma once

#include <cstdint>

#include "core/device.h"

namespace lathe::kernels {

struct CopyCeilingCuda {
  void* out;
  const void* in;
  int64_t bytes;
};
struct MultiplyCeilingCuda {
  float* out;
  int rounds;
};
struct CeilingThreadsCuda {
  int64_t* threads;
};

inline constexpr int ceiling_block = 256;  // threads
inline constexpr int ceiling_chains = 8;   // independent sums of a thread: enough to hide the latency of each

template <DeviceKind>
void copy_ceiling(const CopyCeilingCuda& args);
template <DeviceKind>
void multiply_bf16_ceiling(const MultiplyCeilingCuda& args);
// wgmma_sm_90a.cu: products of 64 × 256 × 16 by each warpgroup, ceiling_chains of them a round, in one chain. Where the
// card has them.
template <DeviceKind>
bool has_wgmma_ceiling();
template <DeviceKind>
void multiply_wgmma_ceiling(const MultiplyCeilingCuda& args);
template <DeviceKind>
void multiply_f32_ceiling(const MultiplyCeilingCuda& args);
template <DeviceKind>
void ceiling_thread_count(const CeilingThreadsCuda& args);

}  // namespace lathe::kernels
