// What the CPU bodies of rms_norm read and write: plain pointers, strides in elements, one range of rows or columns.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

struct RmsNormForwardArgs {
  DType dtype;  // f32 | bf16
  const void* x;
  const void* residual;  // null: no residual, and sum is null too
  void* sum;
  void* out;
  float* rstd;  // may be null
  const void* weight;
  int64_t x_stride, residual_stride, sum_stride, out_stride;
  int64_t columns;
  float eps;
  int64_t row_begin, row_end;
};

struct RmsNormBackwardArgs {
  DType dtype;  // f32 | bf16
  void* grad_x;
  const void* grad_out;
  const void* grad_sum;  // may be null
  const void* x;
  const void* weight;
  const float* rstd;
  int64_t grad_x_stride, grad_out_stride, grad_sum_stride, x_stride;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct RmsNormWeightGradArgs {
  DType dtype;  // of grad_out and x
  float* grad_weight;
  const void* grad_out;
  const void* x;
  const float* rstd;
  int64_t grad_out_stride, x_stride;
  const int32_t* cu_seqlens;
  int64_t sequences;
  int64_t column_begin, column_end;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(rms_norm_forward_rows, RmsNormForwardArgs)
LATHE_CPU_BODY(rms_norm_backward_rows, RmsNormBackwardArgs)
LATHE_CPU_BODY(rms_norm_weight_grad_columns, RmsNormWeightGradArgs)
