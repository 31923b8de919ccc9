// Programmatic dependent launch (sm_90; dependent_launch.h): a kernel that begins while the one before it still runs.
// Older code has nothing in these places, and is launched as ever.
#pragma once

#include "kernels/cuda/device.h"
#if LATHE_SIMT
#include "kernels/simt/block.h"
#endif

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

#if LATHE_SIMT

// This block has nothing against the next kernel's beginning. When all have said so, or ended, it may.
inline void launch_dependents() {}
// The kernels before have ended, and what they wrote is there. Every thread of a dependent launch calls it before it
// touches global memory, or leaves.
inline void grid_dependency_wait() { ::lathe::simt::grid_dependency_wait(); }
// Asks for the line of an address to come into the second-level cache. That is where writes are seen, so that what is
// asked for may be written meanwhile: no wait is owed before it.
inline void prefetch_line(const void*) {}

#else

__device__ __forceinline__ void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void prefetch_line(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

#endif

// How a kernel that has nothing to do before begins.
__device__ __forceinline__ void begin_dependent() {
  launch_dependents();
  grid_dependency_wait();
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
