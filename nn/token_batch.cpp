#include "nn/token_batch.h"

#include "core/error.h"

namespace lathe::nn {

TokenBatch make_token_batch(std::span<const int32_t> ids, std::span<const int64_t> lengths) {
  std::vector<int32_t> positions, bounds{0};
  positions.reserve(ids.size());
  for (const int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) positions.push_back(static_cast<int32_t>(i));
    bounds.push_back(static_cast<int32_t>(positions.size()));
  }
  if (positions.size() != ids.size())
    throw ShapeError("the sequences' lengths sum to " + std::to_string(positions.size()) + ", but there are " +
                     std::to_string(ids.size()) + " tokens");
  const auto vector_tensor = [](std::span<const int32_t> values) {
    return Tensor::of<int32_t>(values, {static_cast<int64_t>(values.size())});
  };
  return {vector_tensor(ids), vector_tensor(positions), vector_tensor(bounds)};
}

}  // namespace lathe::nn
