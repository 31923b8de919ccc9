// The plain body in double; arguments as in dora_norm.h.
#pragma once

#include "kernels/dora_norm/dora_norm.h"

namespace lathe::kernels::reference {

void row_squares(const Tensor& squares, const Tensor& rows);
void dora_norm(const DoraNorm& call);

}  // namespace lathe::kernels::reference
