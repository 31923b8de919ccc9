// The CUDA bodies of gated.h: arguments as the CPU's, with pointers to device memory. Ranges begin at 0.
#pragma once

#include "kernels/cuda/dispatch.h"
#include "kernels/gated/cpu.h"

LATHE_CUDA_BODY(gated_forward_rows, GatedForwardArgs)
LATHE_CUDA_BODY(gated_backward_rows, GatedBackwardArgs)
