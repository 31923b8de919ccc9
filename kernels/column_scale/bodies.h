// What the bodies of column_scale read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct ColumnScaleArgs {
  DType dtype;  // f32 | bf16 | f16, of every matrix and bias
  Matrix out;
  ConstMatrix x;
  ConstMatrix residual;  // may be missing
  const float* scale;
  const void* bias;  // may be null
  int64_t columns;
  int64_t row_begin, row_end;
};

struct ColumnScaleGradientArgs {
  DType dtype;  // of grad_out and x
  float* grad_scale;
  ConstMatrix grad_out;
  ConstMatrix x;
  const float* factor;
  const int32_t* cu_seqlens;  // on the host
  int64_t sequences;
  int64_t column_begin, column_end;
};

// cpu.cpp: rows [row_begin, row_end) or columns [column_begin, column_end).
template <Isa>
void column_scale_rows(ColumnScaleArgs args);
template <Isa>
void column_scale_gradient_columns(ColumnScaleGradientArgs args);

// cuda.cu: all rows or columns, in the device's memory but for cu_seqlens.
template <DeviceKind>
void column_scale_rows(const ColumnScaleArgs& args);
template <DeviceKind>
void column_scale_gradient_columns(const ColumnScaleGradientArgs& args);

}  // namespace lathe::kernels
