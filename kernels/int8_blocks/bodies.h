// What the bodies of int8_blocks.h read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct Int8QuantizeArgs {
  DType dtype;  // of weight: f32 | bf16 | f16
  ConstMatrix weight;
  int8_t* codes;  // [rows, columns]
  float* scales;  // [rows, ⌈columns / 64⌉]
  int64_t columns;
  int64_t row_begin, row_end;
};

struct Int8DequantizeArgs {
  DType dtype;  // of out: f32 | bf16 | f16
  Matrix out;
  const int8_t* codes;  // of the first row wanted
  const float* scales;
  int64_t columns;
  int64_t row_begin, row_end;
};

// cpu.cpp: rows [row_begin, row_end).
template <Isa>
void int8_quantize_rows(Int8QuantizeArgs args);
template <Isa>
void int8_dequantize_rows(Int8DequantizeArgs args);

// cuda.cu: all rows, in the device's memory.
template <DeviceKind>
void int8_quantize_rows(const Int8QuantizeArgs& args);
template <DeviceKind>
void int8_dequantize_rows(const Int8DequantizeArgs& args);

}  // namespace lathe::kernels
