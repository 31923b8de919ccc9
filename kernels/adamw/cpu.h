// What the CPU body of adamw reads and writes: the constants of one step, already combined.
#pragma once

#include <cstdint>

#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

struct AdamWArgs {
  float* weight;
  const float* grad;
  float* m;
  float* v;
  float grad_scale;
  float keep_weight;  // 1 − learning_rate · weight_decay
  float beta1, one_less_beta1;
  float beta2, one_less_beta2;
  float step_size;            // learning_rate / (1 − β1^step)
  float inverse_correction2;  // 1 / √(1 − β2^step)
  float eps;
  int64_t begin, end;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(adamw_range, AdamWArgs)
