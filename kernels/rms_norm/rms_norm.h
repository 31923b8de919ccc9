// Root-mean-square normalisation (Zhang & Sennrich 2019): out = weight · x · rstd, rstd = 1/√(mean(x²) + eps).
//
// x, out, residual, sum: [T, H], rows contiguous, dtype f32 | bf16 | f64. weight [H] of the same dtype. rstd f32 [T]
// (f64 for f64). As transformers does, x·rstd is rounded to the dtype before it is multiplied by weight.
// The mean of squares is summed in one order that depends on H alone.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// out may be x. rstd may be undefined when no backward follows.
void rms_norm_forward(const Tensor& out, const Tensor& rstd, const Tensor& x, const Tensor& weight, float eps);

// sum = x + residual (rounded to the dtype), out = norm(sum). sum may be x or residual; out may not.
void rms_norm_residual_forward(const Tensor& out, const Tensor& sum, const Tensor& rstd, const Tensor& x,
                               const Tensor& residual, const Tensor& weight, float eps);

// With g = grad_out · weight and n = x · rstd:  grad_x = rstd · (g − n · mean(g · n)) + grad_sum,
// where grad_sum (may be undefined) is what arrives at x, or at the sum, by the residual path; grad_x may be it.
// grad_weight f32|f64 [H] (undefined when weight is frozen) += Σ grad_out · n, summed per sequence of
// cu_seqlens i32 [S + 1] and then over the sequences in order.
void rms_norm_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_out, const Tensor& grad_sum,
                       const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& cu_seqlens);

}  // namespace lathe::kernels
