// What the bodies of softcap read and write.
#pragma once

#include "core/device.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct SoftcapArgs {
  Matrix out;  // f32
  ConstMatrix x;
  float cap;
  int64_t columns;
  int64_t row_begin, row_end;
};

// cpu.cpp: rows [row_begin, row_end).
template <Isa>
void softcap_rows(SoftcapArgs args);

// cuda.cu: all rows, in the device's memory.
template <DeviceKind>
void softcap_rows(const SoftcapArgs& args);

}  // namespace lathe::kernels
