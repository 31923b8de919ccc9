// Fills, copies and casts. out[i] = (T_out) in[i], rounded once to nearest even.
#pragma once

#include <optional>

#include "core/tensor.h"

namespace lathe::kernels {

// Same shape, any strides, any dtypes among the floating ones f32, bf16, f16, f64 (or equal dtypes of any kind: the
// bits are copied); out must not overlap in. NaN stays NaN, and what is too large for out becomes infinite.
// From one device to another: one dtype, both contiguous; returns when the bytes have arrived.
void copy(const Tensor& out, const Tensor& in);
// Any dtype and strides; an integer dtype takes the value's whole part.
void fill(const Tensor& out, double value);

// A contiguous tensor of that dtype: `in` itself when it already is one.
Tensor cast(const Tensor& in, DType dtype);

// A contiguous tensor on that device with the bytes of `in`: `in` itself when it already is one. Returns when they have
// arrived.
Tensor moved(const Tensor& in, Device device, std::optional<MemoryTag> tag = {});

}  // namespace lathe::kernels
