// What the CPU body of add and scale reads and writes.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

// out[i] = a[i] + scale · b[i] for i in [begin, end); scale · a[i] where b is null. Each dtype f32 or bf16.
struct AddArgs {
  DType out_dtype, a_dtype, b_dtype;
  void* out;
  const void* a;
  const void* b;
  float scale;
  int64_t begin, end;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(add_range, AddArgs)
