// The CPU bodies of kv_append: rows of D elements, converted. Pointers are host memory.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct KvAppendRowArgs {
  const void* from;
  void* to;
  float* scale;  // i8 only
  int64_t dim;
  DType from_dtype, to_dtype;  // f32 | bf16 | f16, and f32 | bf16 | f16 | i8; they differ
};

template <Isa>
void kv_append_row(const KvAppendRowArgs& row);

}  // namespace lathe::kernels
