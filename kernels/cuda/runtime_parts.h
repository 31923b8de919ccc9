// What runtime.cu, copy_queue.cu and graph.cu know of each other.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/device_runtime.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

void use(int index);  // as DeviceRuntime::use

std::unique_ptr<CopyQueue> make_copy_queue(int index);
std::unique_ptr<Graph> make_graph(int index);

// While a graph is captured, blocks that the allocator gives back to the system are kept: the graph's kernels, which
// have not run yet, use them. So is work of the host, which the graph does again and again.
void hold_memory(int index);     // from now on
void release_memory(int index);  // frees what was kept: the graph is queued
using HostWork = std::function<void()>;
std::vector<std::unique_ptr<HostWork>> take_held_work(int index);  // before release_memory()

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
