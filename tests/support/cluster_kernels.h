// Kernels that prove clusters of blocks: their barrier, shared memory of other blocks, arrivals from there and
// multicast; those of the emulator with planted faults, and, compiled by nvcc for sm_90a, those of a card.
#pragma once

#include "core/device.h"

namespace lathe::testing {

// One planted fault for each class of them.
enum class ClusterFault {
  none,
  peer_reached_before_it_is_there,
  peer_read_after_it_left,
  peer_writes_without_barrier,
  arrival_not_fenced,
  mbarrier_the_cluster_does_not_know,
  arrive_twice,
  barrier_left_out,
  rank_outside,
  multicast_while_a_peer_reads,
  half_of_the_bytes_expected,
  multicast_to_who_left,
};

// Matrices are in memory of the device; each queues one kernel.
struct ClusterKernels {
  bool (*run_here)();  // the thread's device has clusters

  // out [blocks, 64], in clusters of `cluster`: a block reads of the previous one of its cluster the index of that +
  // 1000 · i, hands 0.5 more to the next, arrives at its mbarrier, and gives out what it was handed.
  void (*hand_on)(ClusterFault fault, float* out, int blocks, int cluster);
  // out [128, 64] f32 = a [128, k] · b [64, k]ᵀ in bf16, k fastest and a multiple of 8: a cluster of two blocks, with
  // 64 rows of a each, which share b: each copies half of its rows to both.
  void (*multicast_product)(ClusterFault fault, float* out, const void* a, const void* b, int k);
};

// cuda: only where nvcc compiled it (LATHE_TEST_SM90A).
template <DeviceKind>
ClusterKernels cluster_kernels();

}  // namespace lathe::testing
