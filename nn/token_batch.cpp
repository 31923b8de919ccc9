#include "nn/token_batch.h"

#include "core/error.h"

namespace lathe::nn {

TokenBatch make_token_batch(std::span<const int32_t> ids, std::span<const int32_t> lengths, int32_t first_sample) {
  const auto tokens = static_cast<int64_t>(ids.size());
  TokenBatch batch{Tensor::of<int32_t>(ids, {tokens}), autograd::SequenceLayout::of(lengths, first_sample)};
  if (batch.layout.tokens() != tokens)
    throw ShapeError("the sequences' lengths sum to " + std::to_string(batch.layout.tokens()) + ", but there are " +
                     std::to_string(tokens) + " tokens");
  return batch;
}

}  // namespace lathe::nn
