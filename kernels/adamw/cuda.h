// The CUDA bodies of adamw.h. Pointers are device memory.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "kernels/adamw/arguments.h"

namespace lathe::kernels {

// What the codes of m (signed) and v (unsigned) stand for; travels as a kernel argument.
struct AdamW8bitMaps {
  float m[256], v[256];
};

struct AdamW8bitCuda : AdamW8bitOperands {
  AdamW8bitMaps maps;
};

template <DeviceKind>
void adamw_elements(const AdamWOperands& args);
template <DeviceKind>
void adamw_8bit_blocks(const AdamW8bitCuda& args);

}  // namespace lathe::kernels
