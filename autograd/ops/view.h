// Other views of the same storage: no data moves in the forward, but for columns that are split and joined.
#pragma once

#include <vector>

#include "autograd/variable.h"

namespace lathe::autograd {

Variable view(const Variable& x, const Shape& shape);                          // contiguous
Variable slice(const Variable& x, int dimension, int64_t begin, int64_t end);  // [begin, end) of a dimension
// x [T, N] cut into tensors [T, widths[i]], contiguous copies; the widths add up to N.
std::vector<Variable> split_columns(const Variable& x, const std::vector<int64_t>& widths);
// Each of the `heads` of x [T, heads · Σ widths] cut so: tensors [T, heads · widths[i]].
std::vector<Variable> split_heads(const Variable& x, int64_t heads, const std::vector<int64_t>& widths);
// The other way round: parts [T, Nᵢ] side by side, [T, Σ Nᵢ].
Variable join_columns(const std::vector<Variable>& parts);

}  // namespace lathe::autograd
