// The tokens of one forward: sequences laid end to end, no padding.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "autograd/sequence_layout.h"
#include "core/tensor.h"

namespace lathe::nn {

struct TokenBatch {
  Tensor ids;                       // i32 [T]
  autograd::SequenceLayout layout;  // positions run from 0 in each sequence, or from what is cached of it
  // The name of the adapter that each sequence uses, "" for none. Empty: all use the only adapter of the model, or
  // none where it has none; a model with several wants to be told.
  std::vector<std::string> adapters = {};
  // Of ids on a device, where an embedding trains, of which all sequences use the same: kernels::embedding_plan there.
  Tensor embedding_plan = {};
};

// Whole sequences, positions from 0. `lengths` cuts `ids`; ShapeError when they do not sum to its size.
// `first_sample` numbers the sequences within an optimiser step.
TokenBatch make_token_batch(std::span<const int32_t> ids, std::span<const int32_t> lengths, int32_t first_sample = 0);

}  // namespace lathe::nn
