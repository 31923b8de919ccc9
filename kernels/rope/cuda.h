// The CUDA body of rope: arguments as the CPU's, with pointers to device memory (positions may be on the host); begin is 0.
#pragma once

#include "kernels/cuda/dispatch.h"
#include "kernels/rope/cpu.h"

LATHE_CUDA_BODY(rope, RopeArgs)
