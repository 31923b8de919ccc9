// The plain bodies in double; arguments as in causal_conv.h.
#pragma once

#include "core/tensor.h"
#include "kernels/paged_attention/paged_batch.h"

namespace lathe::kernels::reference {

void causal_conv_forward(const Tensor& out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& cu_seqlens);
void causal_conv_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_bias,
                          const Tensor& grad_out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                          const Tensor& cu_seqlens);
void causal_conv_step(const Tensor& out, const Tensor& states, const Tensor& x, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch);

}  // namespace lathe::kernels::reference
