// The plain body: every element read as double, rounded once. Arguments as in copy.h; floating dtypes only.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

void copy(const Tensor& out, const Tensor& in);

}  // namespace lathe::kernels::reference
