// The plain bodies in double; arguments as in embedding.h.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

void embedding_forward(const Tensor& out, const Tensor& weight, const Tensor& ids);
void embedding_backward(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& ids, const Tensor& cu_seqlens);

}  // namespace lathe::kernels::reference
