// While a graph is captured, blocks that the allocator gives back to the system are kept: the graph's kernels, which have not
// run yet, use them.
#pragma once

#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

void hold_memory(int index);     // from now on
void release_memory(int index);  // frees what was kept: the graph is queued

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
