// What the bodies of dropout read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct DropoutArgs {
  DType dtype;  // f32 | bf16 | f16
  Matrix out;
  ConstMatrix x;
  const int32_t *cu_seqlens, *sample_numbers;  // on the host
  int64_t sequences;
  uint32_t key[2];
  uint32_t counter[4];          // of sample 0, position 0, column 0; of step 0 where the step is stored
  const uint32_t* stored_step;  // devices' alone; null: counter has it
  uint32_t threshold;           // words below it drop
  float scale;                  // of what is kept
  int64_t columns;
  int64_t row_begin, row_end;
};

// An element's counter: the sample's number is added to word 1; a token's position in its sequence and the column, four
// to a counter, make word 0.
inline constexpr int dropout_position_shift = 14;

// cpu.cpp: rows [row_begin, row_end).
template <Isa>
void dropout_rows(DropoutArgs args);

// cuda.cu: all rows, in the device's memory but for the sequences.
template <DeviceKind>
void dropout_rows(const DropoutArgs& args);

}  // namespace lathe::kernels
