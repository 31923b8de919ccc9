// The CPU bodies of nf4.h, for ranges of blocks or of elements.
#pragma once

#include "kernels/nf4/arguments.h"
#include "kernels/simd/dispatch.h"

LATHE_CPU_BODY(nf4_quantize_blocks, Nf4QuantizeArgs)
LATHE_CPU_BODY(nf4_nest_blocks, Nf4NestArgs)
LATHE_CPU_BODY(nf4_dequantize_elements, Nf4DequantizeArgs)
