// The plain bodies in double; arguments as in column_scale.h.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

void column_scale(const Tensor& out, const Tensor& x, const Tensor& scale, const Tensor& bias, const Tensor& residual);
void column_scale_gradient(const Tensor& grad_scale, const Tensor& grad_out, const Tensor& x, const Tensor& factor,
                           const Tensor& cu_seqlens);

}  // namespace lathe::kernels::reference
