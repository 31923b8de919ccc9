// What the CPU body of copy reads and writes: one run of elements, contiguous on both sides.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

struct CastArgs {
  DType out_dtype, in_dtype;  // f32, bf16, f16
  void* out;
  const void* in;
  int64_t count;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(cast_run, CastArgs)
