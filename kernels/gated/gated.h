// Gated activations of an MLP (Shazeer 2020): out = act(gate) · up, with act(x) = x · σ(z(x)),
// σ(z) = 1 / (1 + exp(−z)):
//   SwiGLU  act = silu: z(x) = x
//   GeGLU   act = GELU by tanh, as in Gemma (Hendrycks & Gimpel 2016): ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), which
//           is z(x) = √(8/π) (x + 0.044715 x³): in this form nothing cancels for negative x.
// and, of values that are clamped first (gpt-oss):
//   clamped SwiGLU  out = act(g) · (u + 1) with g = min(gate, 7), u = min(max(up, −7), 7) and z(x) = 1.702 x
// and the first of them (Dauphin et al. 2016), which gates the output of attention (Qwen3-Next, Qwen3.5), too:
//   GLU     act(x) = σ(x)
//
// gate, up, out [T, F] of one dtype (f32 | bf16 | f16; f64 on the cpu), last dimension contiguous; gate and up may be
// the halves of one [T, 2F] tensor, out may be either of them. As transformers does, act(gate) is rounded to the dtype
// before it is multiplied by up.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

void swiglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up);
void geglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up);
void clamped_swiglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up);
void glu_forward(const Tensor& out, const Tensor& gate, const Tensor& up);

// grad_gate = grad_out · up · act′(gate), act′(x) = σ (1 + x z′(x) (1 − σ)), of GLU σ (1 − σ), and
// grad_up = grad_out · act(gate); they may be gate and up (in place). Of clamped values g and u + 1 stand for gate and
// up, and what is beyond its limits has a gradient of 0.
void swiglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                     const Tensor& up);
void geglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                    const Tensor& up);
void clamped_swiglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                             const Tensor& up);
void glu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                  const Tensor& up);

}  // namespace lathe::kernels
