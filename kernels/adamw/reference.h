// The plain bodies in double; arguments as in adamw.h.
#pragma once

#include "kernels/adamw/adamw.h"

namespace lathe::kernels::reference {

void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params);
void adamw_8bit(const Tensor& weight, const Tensor& grad, const AdamW8bitStates& states, const AdamWParams& params);

}  // namespace lathe::kernels::reference
