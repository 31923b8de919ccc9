// The constants of one step in f32, combined in double: what the bodies read.
#pragma once

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

}  // namespace lathe::kernels
