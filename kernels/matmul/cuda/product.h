// The CUDA bodies of matmul.h. Pointers are device memory; strides are in elements, between rows.
#pragma once

#include "core/device.h"
#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

// dense.cu: bf16, f16.
template <DeviceKind>
void product_tiles(const ProductArgs& args);
// f32.cu: f32.
template <DeviceKind>
void product_tiles_f32(const ProductArgs& args);

}  // namespace lathe::kernels
