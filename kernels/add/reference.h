// The plain bodies in double; arguments as in add.h.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels::reference {

void add(const Tensor& out, const Tensor& a, const Tensor& b, double scale);
void scale(const Tensor& out, const Tensor& a, double scale);
void scale_rows(const Tensor& out, const Tensor& a, const Tensor& scales);

}  // namespace lathe::kernels::reference
