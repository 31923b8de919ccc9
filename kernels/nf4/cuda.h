// The CUDA bodies of nf4.h: arguments as the CPU's, with pointers to device memory except where they say "on the host".
#pragma once

#include "kernels/cuda/dispatch.h"
#include "kernels/nf4/arguments.h"

LATHE_CUDA_BODY(nf4_quantize_blocks, Nf4QuantizeArgs)
LATHE_CUDA_BODY(nf4_offset_of, Nf4OffsetArgs)
LATHE_CUDA_BODY(nf4_nest_blocks, Nf4NestArgs)
LATHE_CUDA_BODY(nf4_dequantize_elements, Nf4DequantizeArgs)
