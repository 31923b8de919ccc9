// cos and sin of every position, with the frequency scaling of the model's family. Layers may have different tables.
#pragma once

#include "autograd/ops/rope.h"
#include "nn/config.h"

namespace lathe::nn {

// [positions, rotary dimensions / 2], f32 (f64 for f64), for positions below `positions`. As transformers computes it:
// inverse frequencies and angles in f32. Where frequencies depend on the length of a sequence, they are for all
// sequences those of one of `positions` tokens, as vLLM and llama.cpp have it, too: dynamic ones stretch where that is
// more than the original context, and longrope has its long factors there. Where queries are scaled by their positions
// (RopeConfig::query_beta), and one of them by more than one, as many rows follow for them.
autograd::RopeTables make_rope_tables(const RopeConfig& rope, int64_t head_dim, DType dtype, int64_t positions);

}  // namespace lathe::nn
