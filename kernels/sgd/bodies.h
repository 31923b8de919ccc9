// What the bodies of sgd read and write.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "kernels/arguments/rounded.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Combined in double.
struct SgdConstants {
  float keep_weight;  // 1 − learning_rate · weight_decay
  float step_size;    // learning_rate · grad_scale
};

struct SgdTensor {
  float* weight;
  const float* grad;
  Rounded rounded;  // devices' alone
  int64_t count;
};

// Elements [begin, end).
struct SgdArgs : SgdTensor {
  SgdConstants constants;
  int64_t begin, end;
};
template <Isa>
void sgd_range(SgdArgs args);

struct SgdTensorsArgs {
  const SgdTensor* tensors;
  int64_t count;
  SgdConstants constants;
  double learning_rate;
  const double* factor;  // on the device, times learning_rate in place of constants.step_size; may be null
};
template <DeviceKind>
void sgd_tensors(const SgdTensorsArgs& args);

}  // namespace lathe::kernels
