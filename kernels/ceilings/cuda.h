// The CUDA bodies of ceilings.h.
#pragma once

#include <cstdint>

#include "kernels/cuda/dispatch.h"

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

}  // namespace lathe::kernels

LATHE_CUDA_BODY(copy_ceiling, CopyCeilingCuda)
LATHE_CUDA_BODY(multiply_bf16_ceiling, MultiplyCeilingCuda)
LATHE_CUDA_BODY(multiply_f32_ceiling, MultiplyCeilingCuda)
LATHE_CUDA_BODY(ceiling_thread_count, CeilingThreadsCuda)
