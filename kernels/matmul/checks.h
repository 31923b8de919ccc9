// What the operations of matmul.h and quantized_gemv.h demand of their arguments. ShapeError, with the operation, the
// argument, what was expected and what was found, where they are not met.
#pragma once

#include "kernels/matmul/matmul.h"

namespace lathe::kernels {

void check_linear_forward(const char* operation, const Tensor& out, const Tensor& x, const Weight& weight,
                          const LinearTerms& terms);
void check_quantized_gemv(const Tensor& out, const Tensor& x, const QuantizedWeight& weight, const LinearTerms& terms);
void check_linear_input_gradient(const LinearInputGradient& call);
void check_linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                                  const Tensor& cu_seqlens);
void check_matmul(const Tensor& out, const Tensor& a, const Weight& b, Layout b_layout);

}  // namespace lathe::kernels
