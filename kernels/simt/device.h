// The CUDA language for the host compiler: what a .cu file may write, run by kernels/simt/block.cpp. Included through
// kernels/cuda/device.h.
#pragma once

#include "kernels/simt/collectives.h"
#include "kernels/simt/types.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __shared__ _Pragma("GCC error \"declare shared memory with block_shared<T>() or dynamic_shared<T>()\"")

#define threadIdx (::lathe::simt::thread_index())
#define blockIdx (::lathe::simt::block_index())
#define blockDim (::lathe::simt::block_shape())
#define gridDim (::lathe::simt::grid_shape())
