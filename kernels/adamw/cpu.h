// What the CPU bodies of adamw read and write.
#pragma once

#include <cstdint>

#include "kernels/adamw/arguments.h"
#include "kernels/quantization/dynamic_map.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Elements [begin, end).
struct AdamWArgs : AdamWTensor {
  AdamWConstants constants;
  int64_t begin, end;
};

// The parts of a DynamicMap.
struct CodeTables {
  const float* values;
  const float* thresholds;
  const uint8_t (*first_code)[DynamicMap::buckets];
};

// Blocks [begin, end) of 256 elements below count.
struct AdamW8bitArgs : AdamW8bitTensor {
  AdamWConstants constants;
  CodeTables m_codes, v_codes;
  int64_t begin, end;
};

template <Isa>
void adamw_range(AdamWArgs args);
template <Isa>
void adamw_8bit_range(AdamW8bitArgs args);

}  // namespace lathe::kernels
