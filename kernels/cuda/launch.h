// The one way to start a kernel.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/queued_work.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

struct LaunchConfig {
  const char* name;  // for reports
  dim3 grid, block;
  bool dependent = false;  // may begin before the kernel before it has ended (dependent_launch.h)
  unsigned cluster = 1;    // blocks along x that are there together (ptx/cluster.h), on sm_90: up to 8
};

// The cards that an instance is for. Who launches one for `large_blocks` has another with the same bits where
// shared_bytes_per_block() is less; who launches one for `sm_90a`, where runs_sm_90a() is false.
enum class Cards { all, large_blocks, sm_90a };

// KiB of shared memory: a block may have 99 on cards of sm_86, 89 and 120 (RTX), 163 on sm_80, 227 on sm_90; a
// multiprocessor has 164 on sm_80, 228 on sm_90, of which each block takes one more.
constexpr int block_shared_kib(Cards cards) {
  return cards == Cards::all ? 99 : cards == Cards::large_blocks ? 163 : 227;
}
constexpr int multiprocessor_shared_kib(Cards cards) { return cards == Cards::sm_90a ? 228 : 164; }

// What a block takes, and how many of them a multiprocessor of sm_80 (those for sm_90a: of that) holds at once. A
// kernel that has dynamic shared memory, or counts on a number of blocks, has it as its first parameter, and so in its
// name: launch() takes threads and bytes from there, and scripts/kernel-resources the claim, which it holds against the
// registers that nvcc gave. The claim goes into __launch_bounds__ as well.
template <int threads_, int blocks_, int shared_bytes_, Cards cards = Cards::all>
struct BlockResources {
  static constexpr int threads = threads_, blocks = blocks_;
  static constexpr int shared_bytes = shared_bytes_;  // dynamic
  static_assert(shared_bytes <= block_shared_kib(cards) << 10, "more shared memory than a block may have");
  static_assert(blocks * (shared_bytes + (1 << 10)) <= multiprocessor_shared_kib(cards) << 10,
                "more shared memory than so many blocks have together");
};

// The stream on which every operation of this thread is queued: one for each device (runtime.cu).
cudaStream_t current_stream();
// Multiprocessors of this thread's device. simt says 2, so that small shapes in tests fill it.
int multiprocessors();
// The most shared memory that a block may have: 163 KB on an A100, 227 KB on an H100, 99 KB on an RTX 30 or 40.
int shared_bytes_per_block();
// Whether this thread's device runs code for sm_90a: H100, H200. simt does where it pretends to be one (simt::pretend).
bool runs_sm_90a();
// Throws the error of core/error.h that the code stands for; `doing` says what was tried.
void check(cudaError_t error, const char* doing);

// With dynamic shared memory that the kernel does not claim: what both launch() are made of.
template <class... Parameters, class... Arguments>
void launch_unclaimed(const LaunchConfig& config, size_t shared_bytes, void (*kernel)(Parameters...),
                      Arguments... arguments) {
  static_assert((sizeof(Parameters) + ... + 0) <= 4 << 10,  // NOLINT(bugprone-sizeof-expression): pointers count
                "a kernel's arguments are at most 4 KiB: every CUDA 12 copies so many");
  tell_queued(config.name, int64_t{config.grid.x} * config.grid.y * config.grid.z);
#if LATHE_SIMT
  auto call = [=] { kernel(static_cast<Parameters>(arguments)...); };
  using Call = decltype(call);
  check(launch_kernel({.name = config.name,
                       .grid = config.grid,
                       .block = config.block,
                       .dynamic_bytes = shared_bytes,
                       .dependent = config.dependent,
                       .cluster = config.cluster,
                       .closure = new Call(call),
                       .invoke = [](void* closure) { (*static_cast<Call*>(closure))(); },
                       .destroy = [](void* closure) { delete static_cast<Call*>(closure); }},
                      current_stream()),
        config.name);
#else
  if (shared_bytes > (48 << 10))
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          config.name);
  if (!config.dependent && config.cluster == 1) {
    kernel<<<config.grid, config.block, shared_bytes, current_stream()>>>(static_cast<Parameters>(arguments)...);
    return check(cudaGetLastError(), config.name);
  }
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t launch{};
  const auto next = [&]() -> cudaLaunchAttribute& { return attributes[launch.numAttrs++]; };
  if (config.dependent) {
    cudaLaunchAttribute& attribute = next();
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (config.cluster > 1) {
    cudaLaunchAttribute& attribute = next();
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {config.cluster, 1, 1};
  }
  launch.gridDim = config.grid;
  launch.blockDim = config.block;
  launch.dynamicSmemBytes = shared_bytes;
  launch.stream = current_stream();
  launch.attrs = attributes;
  check(cudaLaunchKernelEx(&launch, kernel, static_cast<Parameters>(arguments)...), config.name);
#endif
}

template <class... Parameters, class... Arguments>
void launch(const LaunchConfig& config, void (*kernel)(Parameters...), const Arguments&... arguments) {
  launch_unclaimed(config, 0, kernel, arguments...);
}

template <int threads, int blocks, int shared_bytes, Cards cards, class... Parameters, class... Arguments>
void launch(const char* name, dim3 grid,
            void (*kernel)(BlockResources<threads, blocks, shared_bytes, cards>, Parameters...),
            const Arguments&... arguments) {
  launch_unclaimed({.name = name, .grid = grid, .block = dim3(threads)}, shared_bytes, kernel,
                   BlockResources<threads, blocks, shared_bytes, cards>{}, arguments...);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
