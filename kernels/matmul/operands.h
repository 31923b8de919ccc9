// Tensors and weights as the bodies of products take them (arguments.h).
#pragma once

#include "core/tensor.h"
#include "kernels/matmul/arguments.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/weights/weight.h"

namespace lathe::kernels {

// A matrix whose rows are contiguous, or a vector; of an undefined tensor, one that is not there.
ProductMatrix product_matrix(const Tensor& tensor);
// A weight that is dense, or packed on a device, where that is dense as well.
ProductMatrix product_matrix(const Weight& weight);
// Whether two inputs are the same rows in memory.
inline bool same_rows(const Tensor& a, const Tensor& b) {
  return a.raw() == b.raw() && a.shape() == b.shape() && a.stride(0) == b.stride(0) && a.dtype() == b.dtype();
}
// The right operand of a product. On a device a quantised one comes beside the arguments (device.h).
void set_right(ProductArgs& args, const Weight& weight);
// What linear_forward's bodies get, but for lora_rows.
ProductArgs forward_args(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms);

}  // namespace lathe::kernels
