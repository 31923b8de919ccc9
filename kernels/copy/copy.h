// Fills, copies and casts. out[i] = (T_out) in[i], rounded once to nearest even.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// Same shape, any strides, any dtypes among the floating ones (or equal dtypes); out must not overlap in.
void copy(const Tensor& out, const Tensor& in);
void fill(const Tensor& out, double value);

// A contiguous tensor of that dtype: `in` itself when it already is one.
Tensor cast(const Tensor& in, DType dtype);

}  // namespace lathe::kernels
