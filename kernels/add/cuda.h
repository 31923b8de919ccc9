// The CUDA body of add and scale: arguments as the CPU's, with pointers to device memory; begin is 0.
#pragma once

#include "kernels/add/cpu.h"
#include "kernels/cuda/dispatch.h"

LATHE_CUDA_BODY(add_range, AddArgs)
