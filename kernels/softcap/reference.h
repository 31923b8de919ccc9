// The plain body in double; arguments as in softcap.h.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

void softcap(const Tensor& out, const Tensor& x, double cap);

}  // namespace lathe::kernels::reference
