// Tensors and weights as the bodies of products take them (arguments.h).
#pragma once

#include "core/tensor.h"
#include "kernels/matmul/arguments.h"
#include "kernels/matmul/weights/weight.h"

namespace lathe::kernels {

// A matrix whose rows are contiguous, or a vector; of an undefined tensor, one that is not there.
ProductMatrix product_matrix(const Tensor& tensor);
// A weight that is dense, or packed on a device, where that is dense as well.
ProductMatrix product_matrix(const Weight& weight);

}  // namespace lathe::kernels
