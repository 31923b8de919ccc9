// SwiGLU (Shazeer 2020): out = silu(gate) · up, silu(x) = x / (1 + exp(−x)).
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// gate, up, out [T, F] of one dtype (f32 | bf16 | f64), last dimension contiguous; gate and up may be the halves of one
// [T, 2F] tensor. As transformers does, silu(gate) is rounded to the dtype before it is multiplied by up.
void swiglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up);

// grad_gate, grad_up may be gate, up (in place).
void swiglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                     const Tensor& up);

}  // namespace lathe::kernels
