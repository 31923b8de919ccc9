// The plain bodies in double; arguments as in short_conv.h.
#pragma once

#include "core/tensor.h"
#include "kernels/paged_attention/paged_batch.h"

namespace lathe::kernels::reference {

void short_conv_forward(const Tensor& out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                        const Tensor& cu_seqlens);
void short_conv_backward(const Tensor& grad_bcx, const Tensor& grad_weight, const Tensor& grad_bias,
                         const Tensor& grad_out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                         const Tensor& cu_seqlens);
void short_conv_paged(const Tensor& out, const Tensor& pages, const Tensor& bcx, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch);

}  // namespace lathe::kernels::reference
