// The short convolution that mixes the tokens of a layer in place of attention (LFM2, Liquid AI 2025; transformers'
// Lfm2ShortConv). Of B, C and x, which one product gives for each token, p = B ∘ x goes through a causal convolution,
// each column by itself, and C gates what comes out. With L taps, and p = 0 before a sequence's first token:
//   p_t = B_t ∘ x_t,   c_t = bias + Σ_j weight[:, j] ∘ p_{t − (L − 1) + j},   out_t = C_t ∘ c_t.
// p and c are rounded to the dtype. The sum of c begins with the bias and goes on in the order of j.
//
// bcx [T, 3 H]: B, C and x side by side. out, grad_out [T, H]; grad_bcx [T, 3 H]. Rows are contiguous, dtype f32 | bf16
// | f16 | f64. weight [H, L] with L from 1 to most_conv_taps, bias [H] or undefined, contiguous, of the same dtype.
// cu_seqlens i32 [S + 1] on the CPU: a sequence's rows do not depend on its neighbours. No output may be an input.
#pragma once

#include "core/tensor.h"
#include "kernels/paged_attention/paged_batch.h"
#include "kernels/short_conv/taps.h"

namespace lathe::kernels {

void short_conv_forward(const Tensor& out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                        const Tensor& cu_seqlens);

// With g_t = grad_out_t ∘ C_t, of the rows of t's sequence:
//   grad_C_t = grad_out_t ∘ c_t,   h_t = Σ_j weight[:, j] ∘ g_{t + (L − 1) − j},   grad_B_t = h_t ∘ x_t,
//   grad_x_t = h_t ∘ B_t,   grad_weight[:, j] += Σ_t g_t ∘ p_{t − (L − 1) + j},   grad_bias += Σ_t g_t.
// grad_weight [H, L] and grad_bias [H], f32 (f64), are undefined where they are not wanted; they are summed for each
// sequence and then over the sequences in order.
void short_conv_backward(const Tensor& grad_bcx, const Tensor& grad_weight, const Tensor& grad_bias,
                         const Tensor& grad_out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                         const Tensor& cu_seqlens);

// The forward of a step's new tokens, whose p is put into the pages that the block table gives their positions; p of
// the tokens before them is read there. pages [pages, page_size, H] of bcx's dtype, the last dimension contiguous. The
// bits are those of short_conv_forward over the whole sequences. Two sequences that share a page may not both append
// to it.
void short_conv_paged(const Tensor& out, const Tensor& pages, const Tensor& bcx, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch);

}  // namespace lathe::kernels
