// The plain body in double; arguments as in dropout.h.
#pragma once

#include "kernels/dropout/dropout.h"

namespace lathe::kernels::reference {

void dropout(const Tensor& out, const Tensor& x, const Tensor& cu_seqlens, const Tensor& sample_numbers,
             const DropoutParams& params);

}  // namespace lathe::kernels::reference
