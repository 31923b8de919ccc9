// Attention sinks (gpt-oss; Xiao et al. 2024): each head has a logit of its own that joins the softmax's denominator
// and brings no value. They follow attention whose log-sum-exp is known (kernels/attention/attention.h):
//   out[t, h] = x[t, h] · σ(lse[h, t] − sinks[h])
//   lse_out[h, t] = log(exp(lse[h, t]) + exp(sinks[h]))
// attention_backward() of out and lse_out gives the gradients of q, k and v. A row that saw no key, with an lse of −∞,
// stays 0.
//
// x, out, grad_out [T, heads, D]: f32 | bf16 | f16 (f64 on the cpu), one dtype, last dimension contiguous; sinks
// [heads] of that dtype; lse and lse_out f32 (f64) [heads, T], rows contiguous. In f32 (f64), rounded once. Beside the
// cpu D is at most 256.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// out may be x. lse_out may be undefined, and may not be lse.
void attention_sinks(const Tensor& out, const Tensor& lse_out, const Tensor& x, const Tensor& lse, const Tensor& sinks);

// What the gradient of sinks[h] is made of, −Σ over t of dots[t, h] · shares[t, h]: both f32 (f64) [T, heads],
// contiguous, of the forward's out and lse_out.
//   dots[t, h] = Σ over d of grad_out[t, h, d] · out[t, h, d]
//   shares[t, h] = exp(sinks[h] − lse_out[h, t]), the sink's probability
void attention_sinks_backward(const Tensor& dots, const Tensor& shares, const Tensor& grad_out, const Tensor& out,
                              const Tensor& lse_out, const Tensor& sinks);

}  // namespace lathe::kernels
