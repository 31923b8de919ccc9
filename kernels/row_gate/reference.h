// The plain bodies in double; arguments as in row_gate.h.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

void row_gate_forward(const Tensor& out, const Tensor& gate, const Tensor& x, const Tensor& residual);
void row_gate_backward(const Tensor& grad_gate, const Tensor& grad_x, const Tensor& grad_out, const Tensor& gate,
                       const Tensor& x);

}  // namespace lathe::kernels::reference
