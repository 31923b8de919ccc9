// Columns scaled one by one, with what is added after: DoRA's magnitudes (Liu et al. 2024) on a product.
//   out[t, n] = scale[n] · x[t, n] + bias[n] + residual[t, n]
//
// x, out, residual, grad_out: [T, N], rows contiguous, dtype f32 | bf16 | f64; bias [N] of that dtype. scale, factor,
// grad_scale: f32 [N] (f64 for f64). In f32 (f64), rounded once.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// bias and residual may be undefined; out may be x or residual. The gradient of x is the same with grad_out for x and
// neither of them.
void column_scale(const Tensor& out, const Tensor& x, const Tensor& scale, const Tensor& bias = {},
                  const Tensor& residual = {});

// grad_scale[n] += for each sequence of cu_seqlens i32 [S + 1] (on the CPU) in order, factor[n] · Σ over its tokens of
// grad_out[t, n] · x[t, n]: with factor the derivative of scale by what is trained. A batch of sequences gives the bits
// of the same sequences accumulated one by one.
void column_scale_gradient(const Tensor& grad_scale, const Tensor& grad_out, const Tensor& x, const Tensor& factor,
                           const Tensor& cu_seqlens);

}  // namespace lathe::kernels
