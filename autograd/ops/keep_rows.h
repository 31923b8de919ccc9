// Rows of some sequences, the others zero: for what applies to them alone.
#pragma once

#include "autograd/variable.h"

namespace lathe::autograd {

// x [T, N]: rows [begin, end) as they are, 0 elsewhere.
Variable keep_rows(const Variable& x, int64_t begin, int64_t end);

}  // namespace lathe::autograd
