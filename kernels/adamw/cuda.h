// The CUDA bodies of adamw.h. Pointers are device memory.
#pragma once

#include <cstdint>

#include "kernels/adamw/constants.h"
#include "kernels/cuda/dispatch.h"

namespace lathe::kernels {

struct AdamWCuda {
  float* weight;
  const float* grad;
  float* m;
  float* v;
  AdamWConstants constants;
  int64_t count;
};

// What the codes of m (signed) and v (unsigned) stand for; travels as a kernel argument.
struct AdamW8bitMaps {
  float m[256], v[256];
};

struct AdamW8bitCuda {
  float* weight;
  const float* grad;
  uint8_t* m;
  uint8_t* v;
  float* m_absmax;
  float* v_absmax;
  AdamWConstants constants;
  int64_t count;
  AdamW8bitMaps maps;
};

}  // namespace lathe::kernels

LATHE_CUDA_BODY(adamw_elements, AdamWCuda)
LATHE_CUDA_BODY(adamw_8bit_blocks, AdamW8bitCuda)
