// Stages of shared memory that bulk copies fill while wgmma reads others (sm_90a): a ring between one thread that
// produces and the warps that consume, who meet at two mbarriers of each stage and at no barrier of the block. Where
// bulk copies cannot bring all of a stage, warps that copy the rest produce it with that thread.
#pragma once

#include "kernels/cuda/ptx/tensor_copy.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Which stage of the ring comes next, and the parity of its phase. Producer and consumers count for themselves.
template <int stages>
struct RingPlace {
  int stage = 0;
  unsigned parity = 0;

  __device__ __forceinline__ void advance(int used = stages) {  // of them
    stage = stage + 1 == used ? 0 : stage + 1;
    parity ^= stage == 0 ? 1 : 0;
  }
};

// In shared memory.
template <int stages_>
struct BulkPipeline {
  static constexpr int stages = stages_;
  using Place = RingPlace<stages>;
  MBarrier full[stages], empty[stages];

  // By one thread; a barrier of the block follows. Every consuming warp releases every stage once, and every copying
  // warp delivers its part of it once.
  __device__ __forceinline__ void init(int consuming_warps, int copying_warps = 0) {
    for (int i = 0; i < stages; ++i) {
      mbarrier_init(full[i], static_cast<unsigned>(1 + copying_warps));
      mbarrier_init(empty[i], static_cast<unsigned>(consuming_warps));
    }
    fence_mbarrier_init();
  }

  // The producer: all consumers are done with the stage.
  __device__ __forceinline__ void wait_until_empty(Place place) { mbarrier_wait(empty[place.stage], place.parity ^ 1); }
  // The same, and so many bytes of copies onto full[place.stage] follow.
  __device__ __forceinline__ void begin_fill(Place place, unsigned bytes) {
    wait_until_empty(place);
    mbarrier_arrive_expect_tx(full[place.stage], bytes);
  }

  // By all lanes of a copying warp: all but their latest `groups_left` groups of cp.async are in the stage.
  template <int groups_left>
  __device__ __forceinline__ void deliver(int stage) {
    cp_async_wait<groups_left>();
    fence_proxy_async();
    __syncwarp();  // every lane's part is there for wgmma
    if (threadIdx.x % 32 == 0) mbarrier_arrive(full[stage]);
  }

  // A consumer: the stage is there.
  __device__ __forceinline__ void wait_until_full(Place place) { mbarrier_wait(full[place.stage], place.parity); }
  // By all lanes of a warp, whose wgmma that read the stage have been waited for.
  __device__ __forceinline__ void release(int stage) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(empty[stage]);
  }
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
