// Other views of the same storage: no data moves in the forward.
#pragma once

#include "autograd/variable.h"

namespace lathe::autograd {

Variable view(const Variable& x, const Shape& shape);                          // contiguous
Variable slice(const Variable& x, int dimension, int64_t begin, int64_t end);  // [begin, end) of a dimension

}  // namespace lathe::autograd
