// The plain body in double; arguments as in sgd.h.
#pragma once

#include "kernels/sgd/sgd.h"

namespace lathe::kernels::reference {

void sgd(const Tensor& weight, const Tensor& grad, const SgdParams& params);

}  // namespace lathe::kernels::reference
