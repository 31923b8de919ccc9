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

struct AdamWTensorsCuda {
  const AdamWTensor* tensors;
  int64_t count;
  AdamWConstants constants;
  const double* factor;  // on the device, in place of constants.grad_scale; may be null
};
struct AdamW8bitTensorsCuda {
  const AdamW8bitTensor* tensors;
  int64_t count;
  AdamWConstants constants;
  const double* factor;
  const AdamW8bitMaps* maps;
};

template <DeviceKind>
void adamw_tensors(const AdamWTensorsCuda& args);
template <DeviceKind>
void adamw_8bit_tensors(const AdamW8bitTensorsCuda& args);

}  // namespace lathe::kernels
