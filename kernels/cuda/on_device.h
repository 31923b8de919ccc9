// LATHE_ON_DEVICE(device, call(…)): the function of kernels/cuda/layer.h for cards or for simt.
#pragma once

#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/layer.h"

#if defined(LATHE_WITH_CUDA)
#define LATHE_ON_DEVICE(device, call) ((device).kind == DeviceKind::simt ? simt::call : cuda::call)
#else
#define LATHE_ON_DEVICE(device, call) ((device).kind == DeviceKind::simt ? void() : no_cuda_in_this_build(), simt::call)
#endif
