// Blocks that are there at the same time, on neighbouring multiprocessors, and reach each other's shared memory (thread
// block clusters, sm_90; launch.h starts them). A block may touch another one's only after a barrier of the cluster,
// which says that it has begun, and before one at which the other waits before it leaves.
#pragma once

#include "kernels/cuda/ptx.h"
#if LATHE_SIMT
#include "kernels/simt/cluster.h"
#endif

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

#if LATHE_SIMT

// Of this block within its cluster, from 0 on: blockIdx.x % cluster.
inline int cluster_rank() { return ::lathe::simt::cluster_rank(); }

// By every thread of the cluster: what a thread did before it arrives is there for all that have waited. Threads that
// have exited are not waited for.
inline void cluster_arrive(::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::cluster_arrive(where);
}
inline void cluster_wait(::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::cluster_wait(where);
}

// Where that block's shared memory has what `own` is in this one's: an address for loads and stores.
template <class T>
T* in_block(int rank, T* own, ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  return static_cast<T*>(::lathe::simt::shared_memory_of(rank, own, where));
}

#else

__device__ __forceinline__ int cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

// Not .aligned: the lanes of a warp need not come together.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

template <class T>
__device__ __forceinline__ T* in_block(int rank, T* own) {
  uint64_t there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(own), "r"(rank));
  return reinterpret_cast<T*>(there);
}

#endif

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
