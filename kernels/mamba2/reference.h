// The plain bodies in double; arguments as in mamba2.h.
#pragma once

#include "kernels/mamba2/mamba2.h"

namespace lathe::kernels::reference {

void mamba2_forward(const Tensor& out, const Mamba2& inputs, const Tensor& cu_seqlens);
void mamba2_backward(const Tensor& grad_xbc, const Tensor& grad_dt, const Tensor& grad_A_log, const Tensor& grad_D,
                     const Tensor& grad_dt_bias, const Tensor& grad_out, const Mamba2& inputs,
                     const Tensor& cu_seqlens);
void mamba2_step(const Tensor& out, const Tensor& states, const Mamba2& inputs, const PagedBatch& batch);

}  // namespace lathe::kernels::reference
