// Runs the blocks of a launch, one after another, their threads as fibers.
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
  void* closure = nullptr;  // the kernel bound to its arguments
  void (*invoke)(void* closure) = nullptr;
  void (*destroy)(void* closure) = nullptr;
};

// What one multiprocessor of the emulated card allows: of sm_80, or of the sm_90 that simt::pretend() asked for.
inline constexpr unsigned max_threads_per_block = 1024;
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
  uint32_t block_epoch = 0;  // counts barriers, never falls
  uint32_t warp_epoch = 0;   // counts __syncwarp of the warp, never falls
  bool awaits_grid = false;  // of a dependent launch: it has not waited for the kernel before yet
};
extern RunningThread running;

// The running thread goes on once arrived(what) is true. Where that can never be, the report of the hang has
// describe(what) in it.
void wait_until(const char* name, bool (*arrived)(const void* what), std::string (*describe)(const void* what),
                const void* what, Where where);
// From here on the running thread of a dependent launch may touch global memory.
void grid_dependency_wait();

void report_of_thread(int thread, const std::string& what, Where where);  // like report()
void report_at(const char* what, const void* code_address);               // like report(), from an instrumented access

}  // namespace lathe::simt
