// What the CPU body of copy reads and writes: one run of elements, contiguous on both sides.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct CastArgs {
  DType out_dtype, in_dtype;  // f32, bf16, f16
  void* out;
  const void* in;
  int64_t count;
};

template <Isa>
void cast_run(CastArgs args);

}  // namespace lathe::kernels
