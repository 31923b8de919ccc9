// The first include of every .cu file. nvcc compiles it as CUDA into namespace lathe::kernels::cuda; the host compiler
// compiles the same text for the simt device into lathe::kernels::simt (see docs/simt.md).
//
// A .cu file includes only what stands in kernels/cuda and its operation's header of arguments, and no standard
// containers: on simt every access it makes is checked, and an inline function of the standard library compiled here
// would be shared with the whole program.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define LATHE_CUDA_NAMESPACE cuda
#define LATHE_SIMT 0
#define LATHE_UNROLL _Pragma("unroll")
#else
#include "kernels/simt/device.h"
#include "kernels/simt/runtime.h"
#define LATHE_CUDA_NAMESPACE simt
#define LATHE_SIMT 1
#define LATHE_UNROLL
namespace lathe::kernels::simt {
using namespace ::lathe::simt;
}
#endif

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// The block's static shared memory as one struct: one object for each T and kernel, uninitialised when the block
// starts.
#if LATHE_SIMT
template <class T>
T& block_shared(::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  static const char key = 0;
  return *static_cast<T*>(::lathe::simt::static_shared(&key, sizeof(T), alignof(T) < 16 ? 16 : alignof(T), where));
}
#else
template <class T>
__device__ __forceinline__ T& block_shared() {
  __shared__ __align__(16) unsigned char memory[sizeof(T)];
  return *reinterpret_cast<T*>(memory);
}
#endif

// The dynamic shared memory of BlockResources (launch.h).
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#if LATHE_SIMT
  return static_cast<T*>(::lathe::simt::dynamic_shared_memory());
#else
  extern __shared__ __align__(128) unsigned char lathe_dynamic_shared[];
  return reinterpret_cast<T*>(lathe_dynamic_shared);
#endif
}

using bf16_t = __nv_bfloat16;
using f16_t = __half;
__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bf16_t value) { return __bfloat162float(value); }
__device__ __forceinline__ float to_float(f16_t value) { return __half2float(value); }
template <class T>
__device__ __forceinline__ T from_float(float value);  // rounds to nearest even
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bf16_t from_float<bf16_t>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __forceinline__ f16_t from_float<f16_t>(float value) {
  return __float2half_rn(value);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {
using namespace LATHE_CUDA_NAMESPACE;  // for the bodies, which stand here (kernels/dispatch.h)
}
