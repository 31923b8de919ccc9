// The CPU bodies that fill and read PackedWeight's panels.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

// f32 rows [count][columns] into panels, from row `first` on.
struct PackRowsArgs {
  uint32_t* panels;
  DType dtype;  // f32 | bf16
  int64_t columns, first, count;
  const float* rows;
};

struct UnpackRowsArgs {
  const uint32_t* panels;
  DType dtype;
  int64_t columns, first, count;
  float* rows;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(pack_rows, const lathe::kernels::PackRowsArgs&)
LATHE_CPU_BODY(unpack_rows, const lathe::kernels::UnpackRowsArgs&)
