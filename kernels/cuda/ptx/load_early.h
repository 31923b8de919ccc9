// A load that stays where it is written. The compiler moves one whose value only a branch needs behind the branch,
// which may wait for memory itself: two waits where there should be one.
#pragma once

#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

#if LATHE_SIMT

inline int32_t load_early(const int32_t* address) { return *address; }

#else

__device__ __forceinline__ int32_t load_early(const int32_t* address) {
  int32_t value;
  asm volatile("ld.global.s32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}

#endif

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
