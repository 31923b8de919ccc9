// The rotation in plain loops over f64: the specification of the CPU body, and the body for f64 itself.
#pragma once

#include "kernels/rope/rope.h"

namespace lathe::kernels::reference {

void rope(const Tensor& out, const Tensor& x, const Tensor& positions, const Tensor& cos_table, const Tensor& sin_table,
          RopeDirection direction);

}  // namespace lathe::kernels::reference
