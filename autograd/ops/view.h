// Other views of the same storage: no data moves in the forward, but for split_columns.
#pragma once

#include <vector>

#include "autograd/variable.h"

namespace lathe::autograd {

Variable view(const Variable& x, const Shape& shape);                          // contiguous
Variable slice(const Variable& x, int dimension, int64_t begin, int64_t end);  // [begin, end) of a dimension
// x [T, N] cut into tensors [T, widths[i]], contiguous copies; the widths add up to N.
std::vector<Variable> split_columns(const Variable& x, const std::vector<int64_t>& widths);

}  // namespace lathe::autograd
