// Elementwise sums, products with a constant, and casts.
#pragma once

#include "autograd/variable.h"

namespace lathe::autograd {

Variable add(const Variable& a, const Variable& b,
             double factor = 1.0);  // a + factor · b, one shape and dtype
Variable scale(const Variable& x, double factor);
Variable cast(const Variable& x, DType dtype);  // x itself when it has that dtype
Variable sum(const Variable& x);                // [1]: one chain over the elements in order; f32 for bf16

}  // namespace lathe::autograd
