// cp.async of a single element, which may lie anywhere: for operands whose lines begin at no multiple of 16 bytes, or
// are turned over on their way. It is waited for as cp_async_16 (ptx.h) is.
#pragma once

#include "kernels/cuda/ptx.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

#if LATHE_SIMT

// Copies 4 bytes of global memory to shared memory; zeros, and nothing is read, where they are not `there`.
inline void cp_async_4(void* shared, const void* global, bool there = true,
                       ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::async_copy(shared, global, 4, there ? 4 : 0, where);
}

#else

__device__ __forceinline__ void cp_async_4(void* shared, const void* global, bool there = true) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(there ? 4 : 0)
               : "memory");
}

#endif

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
