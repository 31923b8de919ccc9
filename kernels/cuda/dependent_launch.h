// Launches that do not wait for the kernel before them to end (programmatic dependent launch, sm_90): a decode step is
// a hundred short kernels, between which memory would rest while blocks are started. Its blocks take their places when
// those of the kernel before have all begun, and wait there (grid_dependency_wait() in ptx/grid_dependency.h) until it
// has ended; before that they may ask for weights to come into the second-level cache, and nothing else. simt reports
// what touches memory earlier.
#pragma once

#include "kernels/cuda/launch.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// After the kernel before it has ended, or as said above.
enum class Launch { after, dependent };

// Whether this thread's device, the driver and the code that is in the program for it can do so. simt can.
bool launches_dependents();

// As launch().
template <class... Parameters, class... Arguments>
void launch_dependent(LaunchConfig config, void (*kernel)(Parameters...), const Arguments&... arguments) {
  config.dependent = launches_dependents();
  launch(config, kernel, arguments...);
}
template <int threads, int blocks, int shared_bytes, Cards cards, class... Parameters, class... Arguments>
void launch_dependent(const char* name, dim3 grid,
                      void (*kernel)(BlockResources<threads, blocks, shared_bytes, cards>, Parameters...),
                      const Arguments&... arguments) {
  launch_unclaimed({.name = name, .grid = grid, .block = dim3(threads), .dependent = launches_dependents()},
                   shared_bytes, kernel, BlockResources<threads, blocks, shared_bytes, cards>{}, arguments...);
}
// In clusters of so many blocks.
template <int threads, int blocks, int shared_bytes, Cards cards, class... Parameters, class... Arguments>
void launch_dependent_clusters(const char* name, dim3 grid, unsigned cluster,
                               void (*kernel)(BlockResources<threads, blocks, shared_bytes, cards>, Parameters...),
                               const Arguments&... arguments) {
  launch_unclaimed(
      {.name = name, .grid = grid, .block = dim3(threads), .dependent = launches_dependents(), .cluster = cluster},
      shared_bytes, kernel, BlockResources<threads, blocks, shared_bytes, cards>{}, arguments...);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
