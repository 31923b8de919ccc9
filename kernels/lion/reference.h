// The plain body in double; arguments as in lion.h.
#pragma once

#include "kernels/lion/lion.h"

namespace lathe::kernels::reference {

void lion(const Tensor& weight, const Tensor& grad, const Tensor& m, const LionParams& params);

}  // namespace lathe::kernels::reference
