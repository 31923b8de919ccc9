// Runs the clusters of a launch (a block alone, mostly) one after another, the threads of their blocks as fibers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/simt/collectives.h"

namespace lathe::simt {

struct KernelLaunch {
  const char* name = "";
  dim3 grid, block;
  size_t dynamic_bytes = 0;
  bool dependent = false;   // may begin before the kernel that precedes it on the stream has ended
  unsigned cluster = 1;     // blocks, along x, that are there at the same time
  void* closure = nullptr;  // the kernel bound to its arguments
  void (*invoke)(void* closure) = nullptr;
  void (*destroy)(void* closure) = nullptr;
};

// What one multiprocessor of the emulated card allows: of sm_80, or of the sm_90 that simt::pretend() asked for.
inline constexpr unsigned max_threads_per_block = 1024;
inline constexpr unsigned most_cluster_blocks = 8;
bool has_clusters();  // only sm_90
inline constexpr size_t most_shared_bytes = 227 << 10;
size_t shared_bytes_of_block();  // 163 KiB, or 227
inline constexpr size_t max_static_shared_bytes = 48 << 10;

// Empty when the shape can be launched; otherwise what is beyond the card's limits.
std::string launch_limits(const KernelLaunch& launch);

// Runs the whole grid. Empty when all went well; otherwise what was found, one paragraph. Not reentrant.
std::string run_grid(const KernelLaunch& launch);

// What the checks of memory know about the running thread; see memory_checks.cpp.
struct RunningThread {
  int thread = -1;  // within the block; −1 while no kernel runs
  int warp = 0;
  int rank = 0;                // of its block in the cluster
  uint32_t block_epoch = 0;    // when its block had its last barrier, by a clock that never falls
  uint32_t cluster_epoch = 0;  // and its cluster, by the same
  uint32_t warp_epoch = 0;     // counts __syncwarp of the warp, never falls
  bool awaits_grid = false;    // of a dependent launch: it has not waited for the kernel before yet
};
extern RunningThread running;

// The running thread goes on once arrived(what) is true. Where that can never be, the report of the hang has
// describe(what) in it.
void wait_until(const char* name, bool (*arrived)(const void* what), std::string (*describe)(const void* what),
                const void* what, Where where);
// From here on the running thread of a dependent launch may touch global memory.
void grid_dependency_wait();

// What a barrier orders: the accesses of a block's threads, or of all threads of the cluster.
void begin_block_epoch(int rank);
void begin_cluster_epoch();
// From here on what happens is that block's doing: for what lands while no thread runs.
void run_as_block(int rank);

void report_of_thread(int thread, const std::string& what, Where where);  // like report(), of the running block
void report_at(const char* what, const void* code_address);               // like report(), from an instrumented access

}  // namespace lathe::simt
