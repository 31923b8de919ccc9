// Rotary position embedding (Su et al. 2021), half-split as in transformers: with d < D/2,
//   out[d]       = x[d] · cos − x[d + D/2] · sin
//   out[d + D/2] = x[d + D/2] · cos + x[d] · sin,   cos = cos_table[position, d]
// The backward is the rotation by the opposite angle.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

enum class RopeDirection { forward, backward };

// x, out [T, heads, D], f32 | bf16 | f16 (f64 on the cpu), the last dimension contiguous, the others strided; out may
// be x. cos_table, sin_table f32 (f64 for f64) [max_positions, D/2]. positions i32 [T] on the cpu, where one outside
// the table throws ShapeError, or on x's device, where it gives NaN.
void rope(const Tensor& out, const Tensor& x, const Tensor& positions, const Tensor& cos_table, const Tensor& sin_table,
          RopeDirection direction);

}  // namespace lathe::kernels
