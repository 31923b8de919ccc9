// Rotary position embedding (kernels/rope/rope.h): saves nothing, the backward turns the other way. Tables narrower
// than half a head turn its first dimensions, as many as they have cosines and sines for; the others stay.
#pragma once

#include "autograd/sequence_layout.h"
#include "autograd/variable.h"

namespace lathe::autograd {

struct RopeTables {
  Tensor cos, sin;  // f32 (f64 for f64) [max_positions, rotary dimensions / 2], contiguous
  // Where queries are scaled by their positions: their rows, which lie behind those of keys, begin here.
  int64_t query_row = 0;

  RopeTables of_queries() const;
  RopeTables of_keys() const;
};

// x [T, heads, D] → the same shape, each token turned by its position in layout.
Variable rope(const Variable& x, const RopeTables& tables, const SequenceLayout& layout);

}  // namespace lathe::autograd
