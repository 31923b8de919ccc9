// The CUDA bodies of matmul.h. Pointers are device memory; strides are in elements, between rows.
#pragma once

#include "kernels/cuda/dispatch.h"
#include "kernels/matmul/arguments.h"

namespace lathe::kernels {
using ProductCuda = ProductArgs;
using MatrixCuda = ProductMatrix;
}  // namespace lathe::kernels

LATHE_CUDA_BODY(product_tiles, ProductCuda)      // bf16, f16
LATHE_CUDA_BODY(product_tiles_f32, ProductCuda)  // f32
