// What the bodies of lion read and write.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "kernels/arguments/rounded.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Combined in double.
struct LionConstants {
  float grad_scale;
  float keep_weight;  // 1 − learning_rate · weight_decay
  float learning_rate;
  float beta1, one_less_beta1;
  float beta2, one_less_beta2;
};

struct LionTensor {
  float* weight;
  const float* grad;
  float* m;
  Rounded rounded;  // devices' alone
  int64_t count;
};

// Elements [begin, end).
struct LionArgs : LionTensor {
  LionConstants constants;
  int64_t begin, end;
};
template <Isa>
void lion_range(LionArgs args);

struct LionTensorsArgs {
  const LionTensor* tensors;
  int64_t count;
  LionConstants constants;
  const double* factor;  // on the device, in place of constants.grad_scale; may be null
};
template <DeviceKind>
void lion_tensors(const LionTensorsArgs& args);

}  // namespace lathe::kernels
