// A soft cap of logits, as in Gemma 2: out = cap · tanh(x / cap). The bits that linear_cross_entropy gives its logits.
//
// x, out: [T, N], rows contiguous, f32 (f64 on the cpu); out may be x.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// A cap that is not above 0 throws ShapeError.
void softcap(const Tensor& out, const Tensor& x, float cap);

}  // namespace lathe::kernels
