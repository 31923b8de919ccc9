// Sequences of which some begin with the first tokens of the one before, and their rows where nothing is shared.
#pragma once

#include <cstdint>
#include <vector>

#include "autograd/ops/whole_sequences.h"
#include "autograd/variable.h"
#include "kernels/copy/copy.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {

// Of 3, 2 (which begins with 2 of the 3), 4, 1 and 5 (which begins with that 1) tokens in 15 rows.
inline SharedPrefixes prefixes() { return {layout_of({3, 2, 4, 1, 5}), {0, 2, 0, 0, 1}}; }
inline const std::vector<int64_t> whole_rows = {0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14};
inline const std::vector<int32_t> whole_lengths = {3, 4, 4, 1, 6};

// x's rows as whole sequences have them.
inline Tensor repeated(const Tensor& x) {
  const auto extents = x.shape().dims();
  std::vector<int64_t> shape(extents.begin(), extents.end());
  shape[0] = std::ssize(whole_rows);
  Tensor all = Tensor::empty(Shape(shape), x.dtype());
  for (int64_t i = 0; i < all.dim(0); ++i) {
    const int64_t row = whole_rows[static_cast<size_t>(i)];
    kernels::copy(all.slice(0, i, i + 1), x.slice(0, row, row + 1));
  }
  return all;
}

}  // namespace lathe::autograd::testing
