// The plain bodies in double; arguments as in gated_delta.h.
#pragma once

#include "kernels/gated_delta/gated_delta.h"

namespace lathe::kernels::reference {

void gated_delta_forward(const Tensor& out, const GatedDelta& inputs, const Tensor& cu_seqlens);
void gated_delta_backward(const Tensor& grad_qkv, const Tensor& grad_a, const Tensor& grad_b, const Tensor& grad_A_log,
                          const Tensor& grad_dt_bias, const Tensor& grad_out, const GatedDelta& inputs,
                          const Tensor& cu_seqlens);
void gated_delta_step(const Tensor& out, const Tensor& states, const GatedDelta& inputs, const PagedBatch& batch);

}  // namespace lathe::kernels::reference
