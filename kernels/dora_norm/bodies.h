// What the bodies of dora_norm read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct RowSquaresArgs {
  DType dtype;  // f32 | bf16 | f16, of rows
  double* squares;
  ConstMatrix rows;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct DoraNormArgs {
  DType dtype;            // f32 | bf16 | f16, of b
  float *norm, *inverse;  // either may be null
  const double* squares;
  const float *products, *gram;  // [rank, rows], [rank, rank]
  const void* b;                 // [rows, rank]
  double scaling;
  int64_t rows, rank;
  int64_t row_begin, row_end;
};

// cpu.cpp: rows [row_begin, row_end).
template <Isa>
void row_squares_rows(RowSquaresArgs args);
template <Isa>
void dora_norm_rows(DoraNormArgs args);

// cuda.cu: all rows, in the device's memory.
template <DeviceKind>
void row_squares_rows(const RowSquaresArgs& args);
template <DeviceKind>
void dora_norm_rows(const DoraNormArgs& args);

}  // namespace lathe::kernels
