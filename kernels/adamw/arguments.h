// What every f32 body reads and writes: the constants of one step, combined in double, and the operands.
#pragma once

#include <cstdint>

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

struct AdamWOperands {
  float* weight;
  const float* grad;
  float* m;
  float* v;
  AdamWConstants constants;
  int64_t count;
};

// m and v are codes, with an absmax for each block of 256 elements.
struct AdamW8bitOperands {
  float* weight;
  const float* grad;
  uint8_t* m;
  uint8_t* v;
  float* m_absmax;
  float* v_absmax;
  AdamWConstants constants;
  int64_t count;
};

}  // namespace lathe::kernels
