// The CUDA bodies of rms_norm.h. Pointers are device memory; strides are in elements, between rows.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/cuda/dispatch.h"

namespace lathe::kernels {

struct RmsNormForwardCuda {
  DType dtype;  // f32 | bf16, of x, residual, sum, out and weight
  const void* x;
  int64_t x_stride;
  const void* residual;  // null: plain
  int64_t residual_stride;
  void* sum;
  int64_t sum_stride;
  void* out;
  int64_t out_stride;
  float* rstd;  // may be null
  const void* weight;
  int64_t rows, columns;
  float eps;
};

struct RmsNormBackwardCuda {
  DType dtype;
  void* grad_x;
  int64_t grad_x_stride;
  float* grad_weight;  // null: frozen
  const void* grad_out;
  int64_t grad_out_stride;
  const void* grad_sum;  // may be null
  int64_t grad_sum_stride;
  const void* x;
  int64_t x_stride;
  const void* weight;
  const float* rstd;
  const int32_t* cu_seqlens;  // on the host
  int64_t sequences;
  int64_t rows, columns;
};

}  // namespace lathe::kernels

LATHE_CUDA_BODY(rms_norm_forward_rows, RmsNormForwardCuda)
LATHE_CUDA_BODY(rms_norm_backward_rows, RmsNormBackwardCuda)
