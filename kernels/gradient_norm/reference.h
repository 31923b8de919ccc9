// The plain body in double; arguments as in gradient_norm.h.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

double sum_of_squares(const Tensor& x);

}  // namespace lathe::kernels::reference
