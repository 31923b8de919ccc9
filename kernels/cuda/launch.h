// The one way to start a kernel.
#pragma once

#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

struct LaunchConfig {
  const char* name;  // for reports
  dim3 grid, block;
  size_t shared_bytes = 0;  // dynamic
};

// The stream on which every operation of this thread is queued: one for each device (runtime.cu).
cudaStream_t current_stream();
// Multiprocessors of this thread's device. simt says 2, so that small shapes in tests fill it.
int multiprocessors();
// The most shared memory that a block may have: 163 KB on an A100, 227 KB on an H100, 99 KB on an RTX 30 or 40.
int shared_bytes_per_block();
// Throws the error of core/error.h that the code stands for; `doing` says what was tried.
void check(cudaError_t error, const char* doing);

template <class... Parameters, class... Arguments>
void launch(const LaunchConfig& config, void (*kernel)(Parameters...), Arguments... arguments) {
#if LATHE_SIMT
  auto call = [=] { kernel(static_cast<Parameters>(arguments)...); };
  using Call = decltype(call);
  check(launch_kernel({.name = config.name,
                       .grid = config.grid,
                       .block = config.block,
                       .dynamic_bytes = config.shared_bytes,
                       .closure = new Call(call),
                       .invoke = [](void* closure) { (*static_cast<Call*>(closure))(); },
                       .destroy = [](void* closure) { delete static_cast<Call*>(closure); }},
                      current_stream()),
        config.name);
#else
  if (config.shared_bytes > (48 << 10))
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(config.shared_bytes)), config.name);
  kernel<<<config.grid, config.block, config.shared_bytes, current_stream()>>>(static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), config.name);
#endif
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
