// The plain bodies in double; arguments as in swiglu.h.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

void swiglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up);
void swiglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                     const Tensor& up);

}  // namespace lathe::kernels::reference
