// Steps of sequences that have states, for tests that cut them in many ways.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "kernels/paged_attention/paged_batch.h"

namespace lathe::testing::state_steps {

inline constexpr int64_t page_size = 64;

inline Tensor numbers(const std::vector<int32_t>& values, const Shape& shape) {
  return Tensor::of<int32_t>(values, shape);
}
inline Tensor numbers(const std::vector<int32_t>& values) { return numbers(values, {std::ssize(values)}); }

// New tokens [begin, end) of sequences, and the slots of their states.
struct Piece {
  int32_t begin, end, slot;
};
inline kernels::PagedBatch batch_of(const std::vector<Piece>& pieces, Device device, const Tensor& there = {}) {
  std::vector<int32_t> bounds{0}, contexts, slots, table;
  for (const Piece& piece : pieces) {
    bounds.push_back(bounds.back() + piece.end - piece.begin);
    contexts.push_back(piece.end);
    slots.push_back(piece.slot);
    table.push_back(0);
    table.push_back(1);
  }
  return {numbers(bounds), numbers(contexts), numbers(table, {std::ssize(pieces), 2}), {2, page_size, device},
          there,           numbers(slots)};
}

}  // namespace lathe::testing::state_steps
