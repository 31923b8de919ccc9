// Barriers in shared memory (sm_90): they open when their arrivals have come and the bytes that they expect. A phase is
// counted by its parity: who waits for parity p goes on when the first phase of that parity is over, which for a new
// barrier is p = 0; a wait for p = 1 on a new one is no wait.
#pragma once

#include "kernels/cuda/ptx.h"
#if LATHE_SIMT
#include "kernels/simt/mbarrier.h"
#include "kernels/simt/memory_checks.h"
#endif

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

struct MBarrier {
  alignas(8) uint64_t state;
};

#if LATHE_SIMT

using Where = ::lathe::simt::Where;

// By one thread; then fence_mbarrier_init() by the same, then a barrier of the block, then its use.
inline void mbarrier_init(MBarrier& barrier, unsigned arrivals, Where where = Where::current()) {
  ::lathe::simt::mbarrier_init(&barrier.state, arrivals, where);
}
inline void fence_mbarrier_init() { ::lathe::simt::fence_mbarrier_init(); }
inline void mbarrier_arrive(MBarrier& barrier, Where where = Where::current()) {
  ::lathe::simt::mbarrier_arrive(&barrier.state, where);
}
// At the barrier that lies where this one does in another block of the cluster, or in this one; fence_mbarrier_init()
// and a barrier of the cluster came before. It says that this thread has read what it waited for, and nothing of what
// it stored: for that, arrivals would have to wait for memory (a fence of the whole card in nvcc 13's code).
inline void mbarrier_arrive_at(MBarrier& own, int rank, Where where = Where::current()) {
  ::lathe::simt::mbarrier_arrive_at(&own.state, rank, where);
}
// One arrival, and so many bytes of bulk copies more that the phase waits for: all of a box, with what lies outside the
// matrix.
inline void mbarrier_arrive_expect_tx(MBarrier& barrier, unsigned bytes, Where where = Where::current()) {
  ::lathe::simt::mbarrier_arrive_expect_tx(&barrier.state, bytes, where);
}
inline void mbarrier_wait(MBarrier& barrier, unsigned parity, Where where = Where::current()) {
  ::lathe::simt::mbarrier_wait(&barrier.state, parity, where);
}

// What this thread has stored in shared memory before is there for wgmma's descriptors and bulk copies after the next
// barrier. Every thread that stores owes it: a barrier alone is not enough.
inline void fence_proxy_async() { ::lathe::simt::fence_proxy_async(); }

#else

__device__ __forceinline__ void mbarrier_init(MBarrier& barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier.state)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(MBarrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier.state)) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_at(MBarrier& own, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(&own.state)),
      "r"(rank)
      : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_expect_tx(MBarrier& barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier.state)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void mbarrier_wait(MBarrier& barrier, unsigned parity) {
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(done)
        : "r"(shared_address(&barrier.state)), "r"(parity)
        : "memory");
  }
}
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#endif

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
