// What the CPU bodies of adamw read and write.
#pragma once

#include <cstdint>

#include "kernels/adamw/constants.h"
#include "kernels/quantization/dynamic_map.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

struct AdamWArgs {
  float* weight;
  const float* grad;
  float* m;
  float* v;
  AdamWConstants constants;
  int64_t begin = 0, end = 0;
};

// The parts of a DynamicMap.
struct CodeTables {
  const float* values;
  const float* thresholds;
  const uint8_t (*first_code)[DynamicMap::buckets];
};

// Blocks [begin, end) of 256 elements below count.
struct AdamW8bitArgs {
  float* weight;
  const float* grad;
  uint8_t* m;
  uint8_t* v;
  float* m_absmax;
  float* v_absmax;
  CodeTables m_codes, v_codes;
  AdamWConstants constants;
  int64_t count;
  int64_t begin = 0, end = 0;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(adamw_range, AdamWArgs)
LATHE_CPU_BODY(adamw_8bit_range, AdamW8bitArgs)
