// The tokens of one forward: sequences laid end to end, no padding.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace lathe::nn {

struct TokenBatch {
  Tensor ids;         // i32 [T]
  Tensor positions;   // i32 [T]: from 0 in each sequence, or from what is cached of it
  Tensor cu_seqlens;  // i32 [S + 1]: 0, then where each sequence ends
};

// Whole sequences, positions from 0. `lengths` cuts `ids`; ConfigError when they do not sum to its size.
TokenBatch make_token_batch(std::span<const int32_t> ids, std::span<const int64_t> lengths);

}  // namespace lathe::nn
