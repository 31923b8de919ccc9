// cos and sin of every position, with the frequency scaling of the model's family. Layers may have different tables.
#pragma once

#include "autograd/ops/rope.h"
#include "nn/config.h"

namespace lathe::nn {

// [positions, head_dim / 2], f32 (f64 for f64), for positions below `positions`. As transformers computes it: inverse
// frequencies and angles in f32.
autograd::RopeTables make_rope_tables(const RopeConfig& rope, int64_t head_dim, DType dtype, int64_t positions);

}  // namespace lathe::nn
