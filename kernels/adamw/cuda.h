// The CUDA bodies of adamw.h. Pointers are device memory.
#pragma once

#include <cstdint>

#include "kernels/adamw/arguments.h"
#include "kernels/cuda/dispatch.h"

namespace lathe::kernels {

// What the codes of m (signed) and v (unsigned) stand for; travels as a kernel argument.
struct AdamW8bitMaps {
  float m[256], v[256];
};

struct AdamW8bitCuda : AdamW8bitOperands {
  AdamW8bitMaps maps;
};

}  // namespace lathe::kernels

LATHE_CUDA_BODY(adamw_elements, AdamWOperands)
LATHE_CUDA_BODY(adamw_8bit_blocks, AdamW8bitCuda)
