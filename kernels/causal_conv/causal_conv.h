// The causal convolution with silu that stands before a state-space or linear-attention layer (Mamba, Gu & Dao 2023;
// gated delta nets; transformers' causal_conv1d_fn and causal_conv1d_update): each column by itself, over the last L
// tokens of a sequence. With x = 0 before a sequence's first token:
//   c_t = bias + Σ_j weight[:, j] ∘ x_{t − (L − 1) + j},   y_t = silu(c_t) = c_t / (1 + exp(−c_t)).
// c stays in f32 (f64): y is rounded to the dtype once. (transformers rounds c first.) The sum begins with the bias and
// goes on in the order of j.
//
// x, out, grad_out, grad_x [T, C]: rows are contiguous, dtype f32 | bf16 | f16 | f64. weight [C, L] with L from 1 to
// most_conv_taps (kernels/short_conv/taps.h), bias [C] or undefined, contiguous, of the same dtype. cu_seqlens i32
// [S + 1] on the CPU: a sequence's rows do not depend on its neighbours. No output may be an input.
#pragma once

#include "core/tensor.h"
#include "kernels/paged_attention/paged_batch.h"
#include "kernels/short_conv/taps.h"

namespace lathe::kernels {

void causal_conv_forward(const Tensor& out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& cu_seqlens);

// With s = 1 / (1 + exp(−c)) and g_t = grad_out_t ∘ s_t (1 + c_t (1 − s_t)), of the rows of t's sequence:
//   grad_x_t = Σ_j weight[:, j] ∘ g_{t + (L − 1) − j},   grad_weight[:, j] += Σ_t g_t ∘ x_{t − (L − 1) + j},
//   grad_bias += Σ_t g_t.
// grad_weight [C, L] and grad_bias [C], f32 (f64), are undefined where they are not wanted; they are summed for each
// sequence and then over the sequences in order.
void causal_conv_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_bias,
                          const Tensor& grad_out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                          const Tensor& cu_seqlens);

// The forward of a step's new tokens. states [slots, L − 1, C] of x's dtype, the last dimension contiguous, hold the
// last L − 1 rows of x of each sequence, oldest first, in the slot that the batch names; the step leaves the new ones
// there, zeros standing for rows before the first token. A sequence that begins with the step is not told of what its
// slot held. The bits are those of causal_conv_forward over the whole sequence, however steps cut it. ShapeError where
// a sequence with new tokens has a slot out of range; two such may not have the same.
void causal_conv_step(const Tensor& out, const Tensor& states, const Tensor& x, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch);

}  // namespace lathe::kernels
