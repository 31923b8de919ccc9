// What the bodies of rms_norm read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct RmsNormForwardArgs {
  DType dtype;  // f32 | bf16 | f16, of every matrix and weight
  Matrix out;
  Matrix sum;   // there when residual is
  float* rstd;  // may be null
  ConstMatrix x;
  ConstMatrix residual;  // may be missing
  const void* weight;
  float eps;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct RmsNormBackwardArgs {
  DType dtype;  // f32 | bf16 | f16
  Matrix grad_x;
  ConstMatrix grad_out;
  ConstMatrix grad_sum;  // may be missing
  ConstMatrix x;
  const void* weight;
  const float* rstd;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct RmsNormWeightGradArgs {
  DType dtype;  // of grad_out and x
  float* grad_weight;
  ConstMatrix grad_out;
  ConstMatrix x;
  const float* rstd;
  const int32_t* cu_seqlens;  // on the host
  int64_t sequences;
  int64_t column_begin, column_end;
};

// cpu.cpp: rows [row_begin, row_end) or columns [column_begin, column_end).
template <Isa>
void rms_norm_forward_rows(RmsNormForwardArgs args);
template <Isa>
void rms_norm_backward_rows(RmsNormBackwardArgs args);
template <Isa>
void rms_norm_weight_grad_columns(RmsNormWeightGradArgs args);

// cuda.cu: all rows or columns, in the device's memory but for cu_seqlens.
template <DeviceKind>
void rms_norm_forward_rows(const RmsNormForwardArgs& args);
template <DeviceKind>
void rms_norm_backward_rows(const RmsNormBackwardArgs& args);
template <DeviceKind>
void rms_norm_weight_grad_columns(const RmsNormWeightGradArgs& args);

}  // namespace lathe::kernels
