// The plain bodies in double; arguments as in gated.h.
#pragma once

#include "core/tensor.h"
#include "kernels/gated/bodies.h"

namespace lathe::kernels::reference {

void gated_forward(GatedKind kind, const Tensor& out, const Tensor& gate, const Tensor& up);
void gated_backward(GatedKind kind, const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out,
                    const Tensor& gate, const Tensor& up);

}  // namespace lathe::kernels::reference
