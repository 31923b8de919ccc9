// What the bodies of dropout read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/dropout/mask.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct DropoutArgs {
  DType dtype;  // f32 | bf16 | f16
  Matrix out;
  ConstMatrix x;
  const int32_t *cu_seqlens, *sample_numbers;  // on the host
  int64_t sequences;
  DropoutMask mask;
  int64_t columns;
  int64_t row_begin, row_end;
};

// cpu.cpp: rows [row_begin, row_end).
template <Isa>
void dropout_rows(DropoutArgs args);

// cuda.cu: all rows, in the device's memory but for the sequences.
template <DeviceKind>
void dropout_rows(const DropoutArgs& args);

}  // namespace lathe::kernels
