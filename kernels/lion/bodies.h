// What the bodies of lion read and write.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Elements [begin, end). Constants are combined in double.
struct LionArgs {
  float* weight;
  const float* grad;
  float* m;
  float grad_scale;
  float keep_weight;  // 1 − learning_rate · weight_decay
  float learning_rate;
  float beta1, one_less_beta1;
  float beta2, one_less_beta2;
  int64_t begin, end;
};

// cpu.cpp: elements [begin, end). cuda.cu: all elements, from 0.
template <Isa>
void lion_range(LionArgs args);
template <DeviceKind>
void lion_range(const LionArgs& args);

}  // namespace lathe::kernels
