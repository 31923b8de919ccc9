// matmul.h on device tensors (cuda, simt); checks its arguments.
#pragma once

#include "kernels/matmul/matmul.h"

namespace lathe::kernels::device {

// Dense weights only.
void linear_forward(const Tensor& out, const Tensor& x, WeightView weight, const LinearTerms& terms);

}  // namespace lathe::kernels::device
