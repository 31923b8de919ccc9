#include "tests/support/cluster_kernels.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/cluster.h"
#include "kernels/cuda/ptx/tensor_copy.h"
#include "kernels/cuda/ptx/wgmma.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using lathe::testing::ClusterFault;

__device__ __forceinline__ void cluster_barrier() {
  cluster_arrive();
  cluster_wait();
}

// ---- shared memory of other blocks ----

constexpr int handed = 64;

struct Hands {
  float own[handed], got[handed];
  MBarrier arrived;
};

__device__ __forceinline__ void init(ClusterFault fault, MBarrier& barrier) {
  if (threadIdx.x != 0) return;
  mbarrier_init(barrier, handed);
  if (fault != ClusterFault::arrival_not_fenced) fence_mbarrier_init();
}

// What the one sound kernel would not do; a card runs that only.
__device__ __forceinline__ void misbehave(ClusterFault fault, Hands& hands, int cluster) {
  if (fault == ClusterFault::arrive_twice) cluster_arrive(), cluster_arrive();
  if (fault == ClusterFault::rank_outside) mbarrier_arrive_at(hands.arrived, cluster);
  if (fault == ClusterFault::barrier_left_out && cluster_rank() == 1) {
    __syncthreads();
    mbarrier_wait(hands.arrived, 0);
  }
  if (fault == ClusterFault::mbarrier_the_cluster_does_not_know) {
    init(fault, hands.arrived);
    __syncthreads();
  }
}

__global__ void hand_on_kernel(ClusterFault asked, float* out, int cluster) {
  const ClusterFault fault = LATHE_SIMT ? asked : ClusterFault::none;
  Hands& hands = block_shared<Hands>();
  const int thread = static_cast<int>(threadIdx.x), rank = cluster_rank();
  const int next = (rank + 1) % cluster, previous = (rank + cluster - 1) % cluster;
  hands.own[thread] = static_cast<float>(blockIdx.x) + 1000.0f * static_cast<float>(thread);
  if (fault != ClusterFault::mbarrier_the_cluster_does_not_know) init(fault, hands.arrived);
  if (fault != ClusterFault::peer_reached_before_it_is_there && (fault != ClusterFault::barrier_left_out || rank == 0))
    cluster_barrier();  // all are there, and what they have written
  misbehave(fault, hands, cluster);
  const float* from = in_block(previous, &hands.own[thread]);
  *in_block(next, &hands.got[thread]) = *from + 0.5f;
  mbarrier_arrive_at(hands.arrived, next);
  if (fault != ClusterFault::peer_writes_without_barrier) {
    mbarrier_wait(hands.arrived, 0);
    cluster_barrier();  // what was handed on is there
  }
  out[blockIdx.x * handed + thread] = hands.got[thread];
  if (fault != ClusterFault::peer_read_after_it_left) cluster_barrier();  // nobody asks this block any more
  for (int i = 0; fault == ClusterFault::peer_read_after_it_left && rank == 0 && i < 10; ++i) {
    __syncthreads();  // the other block leaves meanwhile
    out[thread] = *from;
  }
}

void launch_hand_on(ClusterFault fault, float* out, int blocks, int cluster) {
  launch({.name = "hand_on",
          .grid = dim3(static_cast<unsigned>(blocks)),
          .block = dim3(handed),
          .cluster = static_cast<unsigned>(cluster)},
         hand_on_kernel, fault, out, cluster);
}

// ---- multicast ----

constexpr int block_k = 64, stages = 2, half = 32;
constexpr unsigned tile_bytes = 64 * block_k * 2;

struct Stages {
  alignas(1024) SwizzledTile<bf16_t, 64, block_k> a[stages], b[stages];
  MBarrier full[stages], empty[stages];
};

__device__ __forceinline__ void produce(ClusterFault fault, Stages& shared, const TensorMap& a, const TensorMap& b,
                                        int steps) {
  const int rank = cluster_rank();
  const int first = 64 * static_cast<int>(blockIdx.x);
  for (int step = 0; step < steps; ++step) {
    const int stage = step % stages;
    MBarrier& full = shared.full[stage];
    mbarrier_wait(shared.empty[stage], (step / stages & 1) ^ 1);
    mbarrier_arrive_expect_tx(full,
                              fault == ClusterFault::half_of_the_bytes_expected ? 3 * tile_bytes / 2 : 2 * tile_bytes);
    tensor_copy(shared.a[stage].elements, a, first, step * block_k, full);
    tensor_copy_multicast(shared.b[stage].elements + rank * half * block_k, b, rank * half, step * block_k, full, 3);
  }
}

__device__ __forceinline__ void consume(ClusterFault fault, Stages& shared, float* out, int steps) {
  float sums[32];
  const int thread = static_cast<int>(threadIdx.x) % 128, warp = thread / 32, lane = thread % 32;
  for (int step = 0; step < steps; ++step) {
    const int stage = step % stages;
    mbarrier_wait(shared.full[stage], step / stages & 1);
    wgmma_fence();
    const auto a = wgmma_operand<Major::k>(shared.a[stage].elements);
    const auto b = wgmma_operand<Major::k>(shared.b[stage].elements);
    LATHE_UNROLL
    for (int k = 0; k < block_k / 16; ++k) wgmma(sums, a.next_k16(k), b.next_k16(k), step > 0 || k > 0);
    wgmma_commit();
    const int other = 1 - cluster_rank();
    if (fault == ClusterFault::multicast_while_a_peer_reads && other == 0) {
      if (lane == 0) mbarrier_arrive_at(shared.empty[stage], other);
      if (step + 1 < steps) continue;
    }
    wgmma_wait<0>(sums);
    if (lane == 0) {
      mbarrier_arrive(shared.empty[stage]);
      mbarrier_arrive_at(shared.empty[stage], other);
    }
  }
  float* const mine = out + 64 * 64 * blockIdx.x;
  LATHE_UNROLL
  for (int e = 0; e < 32; ++e)
    mine[(16 * warp + lane / 4 + e / 2 % 2 * 8) * 64 + e / 4 * 8 + lane % 4 * 2 + e % 2] = sums[e];
}

__global__ void multicast_kernel(ClusterFault asked, const __grid_constant__ TensorMap a,
                                 const __grid_constant__ TensorMap b, float* out, int steps) {
  const ClusterFault fault = LATHE_SIMT ? asked : ClusterFault::none;
  Stages& shared = *swizzled_shared<Stages>();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < stages; ++stage) {
      mbarrier_init(shared.full[stage], 1);
      mbarrier_init(shared.empty[stage], 8);  // four warps of each block
    }
    fence_mbarrier_init();
  }
  cluster_barrier();  // the mbarriers are there for both
  if (fault == ClusterFault::multicast_to_who_left && cluster_rank() == 1) return;
  if (threadIdx.x < 128) {
    if (threadIdx.x == 0) produce(fault, shared, a, b, steps);
  } else {
    consume(fault, shared, out, steps);
  }
  cluster_barrier();  // the other block still copies to this one, and arrives at its mbarriers
}

void launch_multicast(ClusterFault fault, float* out, const void* a, const void* b, int k) {
  const auto map = [&](const void* data, int rows, int box_rows) {
    return make_tensor_map(
        {.data = data, .rows = rows, .columns = k, .row_stride = k, .box_rows = box_rows, .box_columns = block_k});
  };
  launch_unclaimed({.name = "multicast", .grid = dim3(2), .block = dim3(256), .cluster = 2}, sizeof(Stages),
                   multicast_kernel, fault, map(a, 128, 64), map(b, 64, half), out, (k + block_k - 1) / block_k);
}

bool run_here() {
#if LATHE_SIMT
  return true;
#else
  return runs_sm_90a();
#endif
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::testing {

template <DeviceKind>
ClusterKernels cluster_kernels() {
  using namespace kernels::LATHE_CUDA_NAMESPACE;
  return {.run_here = run_here, .hand_on = launch_hand_on, .multicast_product = launch_multicast};
}
template ClusterKernels cluster_kernels<DeviceKind::LATHE_CUDA_NAMESPACE>();

}  // namespace lathe::testing
