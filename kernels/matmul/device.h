// matmul.h on device tensors (cuda, simt): f32, bf16, f16. Arguments are checked already.
#pragma once

#include "kernels/matmul/matmul.h"

namespace lathe::kernels::device {

// Whether linear_forward multiplies x [M, K] with this weight's codes: few rows of bf16 or f16, K a multiple of 64 and blocks of 64
// or more. The other products want a dense weight of x's dtype in its place (more rows gain nothing from codes).
bool multiplies_codes(const Tensor& x, const QuantizedWeight& weight);

void linear_forward(const Tensor& out, const Tensor& x, WeightView weight, const LinearTerms& terms);
void quantized_gemv(const Tensor& out, const Tensor& x, const QuantizedWeight& weight, const LinearTerms& terms);
void linear_input_gradient(const Tensor& grad_x, const Tensor& grad_out, WeightView weight, const Tensor& lora_dt,
                           const Tensor& lora_a, bool accumulate);
void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale);
void matmul(const Tensor& out, const Tensor& a, const Tensor& b, Layout b_layout, float scale);

}  // namespace lathe::kernels::device
