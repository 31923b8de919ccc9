// cos and sin of every position, with the frequency scaling of the model's family.
#pragma once

#include "core/tensor.h"
#include "nn/config.h"

namespace lathe::nn {

struct RopeTable {
  Tensor cos, sin;  // f32 (f64 for f64) [positions, head_dim / 2]
};

// As transformers computes it: inverse frequencies and angles in f32. dtype is the model's.
RopeTable make_rope_table(const ModelConfig& config, DType dtype);

}  // namespace lathe::nn
