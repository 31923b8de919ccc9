// out[i] = a[i] + scale · b[i], in f32 (f64 for f64), rounded once to out's dtype.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// Contiguous, one shape; dtypes f32, bf16 or f16 (f64 on the cpu), each argument its own, but not bf16 beside
// f16; out may be a or b.
void add(const Tensor& out, const Tensor& a, const Tensor& b, double scale = 1.0);
// out[i] = scale · a[i].
void scale(const Tensor& out, const Tensor& a, double scale);
// out[t, h] = scales[t] · a[t, h]: a row has the bits of scale(). scales f32 (f64 for f64) [T]; out has a's dtype.
void scale_rows(const Tensor& out, const Tensor& a, const Tensor& scales);

}  // namespace lathe::kernels
