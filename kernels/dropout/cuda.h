// The CUDA body of dropout.h: arguments as the CPU's, with pointers to device memory but for the sequences. row_begin is 0.
#pragma once

#include "kernels/cuda/dispatch.h"
#include "kernels/dropout/cpu.h"

LATHE_CUDA_BODY(dropout_rows, DropoutArgs)
