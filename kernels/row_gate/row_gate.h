// A gate for each row, by which a mixture of experts adds the one that all tokens go through (Qwen1.5-MoE;
// transformers' Qwen2MoeSparseMoeBlock): out[t] = residual[t] + σ(gate[t]) · x[t], σ(z) = 1 / (1 + exp(−z)).
//
// x, residual, out, grad_out, grad_x [T, H], gate, grad_gate [T, 1]: one dtype (f32 | bf16 | f16; f64 on the cpu), rows
// contiguous. Computed in f32 (f64) and rounded once. out may be x or residual, grad_x may be x.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

void row_gate_forward(const Tensor& out, const Tensor& gate, const Tensor& x, const Tensor& residual);

// grad_x = σ · grad_out, grad_gate = σ (1 − σ) · Σ over h of grad_out · x, in an order that depends on H alone. The
// residual's gradient is grad_out.
void row_gate_backward(const Tensor& grad_gate, const Tensor& grad_x, const Tensor& grad_out, const Tensor& gate,
                       const Tensor& x);

}  // namespace lathe::kernels
