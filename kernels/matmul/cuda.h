// The CUDA body of linear_forward for dense weights. Pointers are device memory; strides are in elements, between rows.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/cuda/dispatch.h"

namespace lathe::kernels {

struct MatrixCuda {
  void* data = nullptr;  // null: not there
  int64_t stride = 0;
  DType dtype = DType::f32;
};

// out [m, n] = x [m, k] · weightᵀ (+ lora_t [m, rank] · lora_bᵀ) (+ bias [n]) (+ residual [m, n]).
struct LinearForwardCuda {
  int64_t m, n, k, rank;
  MatrixCuda x, weight;       // both f32 or both bf16
  MatrixCuda lora_t, lora_b;  // of that dtype; rank 0: not there
  MatrixCuda bias, residual, out;  // of that dtype or f32
};

}  // namespace lathe::kernels

LATHE_CUDA_BODY(linear_forward_tiles, LinearForwardCuda)
