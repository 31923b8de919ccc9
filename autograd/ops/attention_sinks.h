// Attention sinks as a part of the operations of attention (kernels/attention_sinks/attention_sinks.h).
#pragma once

#include "core/tensor.h"

namespace lathe::autograd {

// The log-sum-exp that attention is to write, [heads, T]: undefined where neither sinks nor a backward want it.
Tensor lse_of_attention(const Tensor& q, const Tensor& sinks, bool recording);

// `out` becomes attention's with the sinks, where there are any; returns its log-sum-exp where a backward wants it.
Tensor add_sinks(const Tensor& out, const Tensor& lse, const Tensor& sinks, bool recording);

// Adds their gradient to grad_sinks f32 (f64) [heads]. out and lse are those with the sinks. A batch of sequences gives
// the bits of the same sequences one by one.
void accumulate_sink_gradient(const Tensor& grad_sinks, const Tensor& grad_out, const Tensor& out, const Tensor& lse,
                              const Tensor& sinks, const Tensor& cu_seqlens);

}  // namespace lathe::autograd
