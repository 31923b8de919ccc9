// The CUDA bodies of int8_blocks.h: arguments as the CPU's, with pointers to device memory. Ranges begin at 0.
#pragma once

#include "kernels/cuda/dispatch.h"
#include "kernels/int8_blocks/cpu.h"

LATHE_CUDA_BODY(int8_quantize_rows, Int8QuantizeArgs)
LATHE_CUDA_BODY(int8_dequantize_rows, Int8DequantizeArgs)
