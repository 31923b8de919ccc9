// What every f32 body reads and writes: the constants of one step, combined in double, and the tensors.
#pragma once

#include <cstdint>

#include "kernels/arguments/rounded.h"

namespace lathe::kernels {

struct AdamWParams;

struct AdamWConstants {
  float grad_scale;
  float keep_weight;  // 1 − learning_rate · weight_decay
  float beta1, one_less_beta1;
  float beta2, one_less_beta2;
  float step_size;            // learning_rate / (1 − β1^step)
  float inverse_correction2;  // 1 / √(1 − β2^step)
  float eps;
};
// Throws ConfigError for a step below 1.
AdamWConstants constants_of(const AdamWParams& params);

struct AdamWTensor {
  float* weight;
  const float* grad;
  float* m;
  float* v;
  Rounded rounded;  // devices' alone
  int64_t count;
};

// m and v are codes, with an absmax for each block of 256 elements.
struct AdamW8bitTensor {
  float* weight;
  const float* grad;
  uint8_t* m;
  uint8_t* v;
  float* m_absmax;
  float* v_absmax;
  Rounded rounded;
  int64_t count;
};

}  // namespace lathe::kernels
