// The CPU bodies that fill and read PackedWeight's panels.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// f32 rows [count][columns] into panels, from row `first` on.
struct PackRowsArgs {
  uint32_t* panels;
  DType dtype;  // f32 | bf16
  bool exact;   // the rows' values are bf16 already
  int64_t columns, first, count;
  const float* rows;
};

struct UnpackRowsArgs {
  const uint32_t* panels;
  DType dtype;
  int64_t columns, first, count;
  float* rows;
};

template <Isa>
void pack_rows(const PackRowsArgs& args);
template <Isa>
void unpack_rows(const UnpackRowsArgs& args);

}  // namespace lathe::kernels
