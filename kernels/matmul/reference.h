// Plain loops in double: the bodies for f64, and what every other body is held against. Shapes are checked already.
#pragma once

#include "kernels/matmul/matmul.h"

namespace lathe::kernels::reference {

void linear_forward(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms);
void linear_input_gradient(const LinearInputGradient& call);
void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale);
void matmul(const Tensor& out, const Tensor& a, const Weight& b, Layout b_layout, float scale);

}  // namespace lathe::kernels::reference
