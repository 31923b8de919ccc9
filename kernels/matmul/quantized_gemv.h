// out [M, N] = x [M, K] · weightᵀ (+ the terms of matmul.h) for M ≤ 4 and a quantised weight on a device, in the order
// in which memory gives the codes fastest: 32 partial sums along k, folded halves onto each other, of f32 products with
// scale · Σ x · code.
//
// NOT the bits of linear_forward, whose one chain along k gives the same for any M and takes longer for it.
// linear_forward is what the engine and the trainer call, whose tokens and log-probabilities must agree; this is for
// one conversation on one card. A row's bits do not depend on the others here, either. On the CPU it is linear_forward.
#pragma once

#include "kernels/matmul/matmul.h"

namespace lathe::kernels {

inline constexpr int64_t most_gemv_rows = 4;

// x bf16 | f16 with rows at multiples of 16 bytes, K a multiple of 64, blocks of 64 or more; out of x's dtype or f32.
// Terms of x's dtype or f32 (LoRA: x's). ShapeError otherwise.
void quantized_gemv(const Tensor& out, const Tensor& x, const QuantizedWeight& weight, const LinearTerms& terms = {});

}  // namespace lathe::kernels
