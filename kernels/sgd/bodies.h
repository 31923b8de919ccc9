// What the bodies of sgd read and write.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Elements [begin, end). Constants are combined in double.
struct SgdArgs {
  float* weight;
  const float* grad;
  float keep_weight;  // 1 − learning_rate · weight_decay
  float step_size;    // learning_rate · grad_scale
  int64_t begin, end;
};

// cpu.cpp: elements [begin, end). cuda.cu: all elements, from 0.
template <Isa>
void sgd_range(SgdArgs args);
template <DeviceKind>
void sgd_range(const SgdArgs& args);

}  // namespace lathe::kernels
