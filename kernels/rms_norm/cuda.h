// The CUDA bodies of rms_norm.h: arguments as the CPU's, with pointers to device memory. Ranges begin at 0.
#pragma once

#include "kernels/cuda/dispatch.h"
#include "kernels/rms_norm/cpu.h"

LATHE_CUDA_BODY(rms_norm_forward_rows, RmsNormForwardArgs)
LATHE_CUDA_BODY(rms_norm_backward_rows, RmsNormBackwardArgs)
LATHE_CUDA_BODY(rms_norm_weight_grad_columns, RmsNormWeightGradArgs)
