// What the bodies of add and scale read and write.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// out[i] = a[i] + scale · b[i] for i in [begin, end); scale · a[i] where b is null. Each dtype f32 or `half`.
struct AddArgs {
  DType out_dtype, a_dtype, b_dtype;
  DType half;  // bf16 | f16
  void* out;
  const void* a;
  const void* b;
  float scale;
  int64_t begin, end;
};

// cpu.cpp: elements [begin, end).
template <Isa>
void add_range(AddArgs args);

// cuda.cu: all elements, in the device's memory.
template <DeviceKind>
void add_range(const AddArgs& args);

// out[t, h] = scales[t] · a[t, h].
struct ScaleRowsArgs {
  DType dtype;  // f32 | bf16 | f16
  void* out;
  const void* a;
  const float* scales;
  int64_t rows, columns;
};
template <DeviceKind>
void scale_rows(const ScaleRowsArgs& args);

}  // namespace lathe::kernels
