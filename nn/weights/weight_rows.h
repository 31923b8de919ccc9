// A weight that is written without ever being whole in memory: its rows are asked for when they are needed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/shape.h"

namespace lathe::nn {

struct WeightRows {
  std::string name;
  Shape shape;  // row-major; a vector is one row
  // Rows [first, first + count) into out, row-major f32. Called from several threads at once.
  std::function<void(int64_t first, int64_t count, float* out)> read;
  // Called when all of its rows have been written; may be empty.
  std::function<void()> finished = {};

  int64_t rows() const { return shape.rank() > 1 ? shape.numel() / shape[-1] : 1; }
  int64_t columns() const { return shape.numel() / rows(); }
};

// Asks for all rows in order, a few MiB at a time, and hands each piece's bytes on: `convert` makes `count` rows of f32
// into bytes, `row_bytes` for each.
void stream_rows(const WeightRows& weight, int64_t row_bytes,
                 const std::function<void(const float* rows, int64_t count, std::byte* out)>& convert,
                 const std::function<void(const std::byte* bytes, int64_t count)>& write);

}  // namespace lathe::nn
