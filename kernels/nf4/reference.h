// Plain loops; arguments as in nf4.h, f32 tensors as f64. Quantising is defined in f32 arithmetic and is done in it
// here, too: codes are exact. Dequantising multiplies in double.
#pragma once

#include "kernels/nf4/nf4.h"

namespace lathe::kernels::reference {

void nf4_quantize(const Tensor& codes, const Tensor& absmax, const Tensor& weight, int64_t block_size);
void nf4_offset(const Tensor& offset, const Tensor& absmax);
void nf4_nest(const Tensor& absmax_codes, const Tensor& nested_absmax, const Tensor& absmax, const Tensor& offset);
void nf4_dequantize(const Tensor& out, const Nf4Weight& weight, int64_t first_row);

}  // namespace lathe::kernels::reference
