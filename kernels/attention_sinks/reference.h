// The plain bodies in double; arguments as in attention_sinks.h.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

void attention_sinks(const Tensor& out, const Tensor& lse_out, const Tensor& x, const Tensor& lse, const Tensor& sinks);
void attention_sinks_backward(const Tensor& dots, const Tensor& shares, const Tensor& grad_out, const Tensor& out,
                              const Tensor& lse_out, const Tensor& sinks);

}  // namespace lathe::kernels::reference
