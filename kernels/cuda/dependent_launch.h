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

template <class... Parameters, class... Arguments>
void launch_dependent_unclaimed(const LaunchConfig& config, size_t shared_bytes, void (*kernel)(Parameters...),
                                Arguments... arguments) {
  if (!launches_dependents()) return launch_unclaimed(config, shared_bytes, kernel, arguments...);
#if LATHE_SIMT
  auto call = [=] { kernel(static_cast<Parameters>(arguments)...); };
  using Call = decltype(call);
  check(launch_kernel({.name = config.name,
                       .grid = config.grid,
                       .block = config.block,
                       .dynamic_bytes = shared_bytes,
                       .dependent = true,
                       .closure = new Call(call),
                       .invoke = [](void* closure) { (*static_cast<Call*>(closure))(); },
                       .destroy = [](void* closure) { delete static_cast<Call*>(closure); }},
                      current_stream()),
        config.name);
#else
  static_assert((sizeof(Parameters) + ... + 0) <= 4 << 10,
                "a kernel's arguments are at most 4 KiB: every CUDA 12 copies so many");
  if (shared_bytes > (48 << 10))
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          config.name);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = config.grid;
  launch.blockDim = config.block;
  launch.dynamicSmemBytes = shared_bytes;
  launch.stream = current_stream();
  launch.attrs = &attribute;
  launch.numAttrs = 1;
  check(cudaLaunchKernelEx(&launch, kernel, static_cast<Parameters>(arguments)...), config.name);
#endif
}

// As launch().
template <class... Parameters, class... Arguments>
void launch_dependent(const LaunchConfig& config, void (*kernel)(Parameters...), const Arguments&... arguments) {
  launch_dependent_unclaimed(config, 0, kernel, arguments...);
}
template <int threads, int blocks, int shared_bytes, Cards cards, class... Parameters, class... Arguments>
void launch_dependent(const char* name, dim3 grid,
                      void (*kernel)(BlockResources<threads, blocks, shared_bytes, cards>, Parameters...),
                      const Arguments&... arguments) {
  launch_dependent_unclaimed({.name = name, .grid = grid, .block = dim3(threads)}, shared_bytes, kernel,
                             BlockResources<threads, blocks, shared_bytes, cards>{}, arguments...);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
