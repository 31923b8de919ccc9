// Plain loops; arguments as in int8_blocks.h, f32 tensors as f64. Quantising is defined in f32 arithmetic and is done
// in it here, too: codes are exact. Dequantising multiplies in double.
#pragma once

#include "kernels/int8_blocks/int8_blocks.h"

namespace lathe::kernels::reference {

void int8_quantize(const Int8Weight& out, const Tensor& weight);
void int8_dequantize(const Tensor& out, const Int8Weight& weight, int64_t first_row);

}  // namespace lathe::kernels::reference
