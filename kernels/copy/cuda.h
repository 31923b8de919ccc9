// The CUDA bodies of copy and fill. Pointers are device memory.
#pragma once

#include "core/dtype.h"
#include "kernels/copy/walk.h"
#include "kernels/cuda/dispatch.h"

namespace lathe::kernels {

struct CopyCuda {
  DType out_dtype, in_dtype;  // equal, or both floating
  void* out;
  const void* in;
  Walk walk;
};

struct FillCuda {
  int64_t element_bytes;
  uint64_t pattern;  // of an element, in its first bytes
  void* out;
  Walk walk;  // out's; the input side is not used
};

}  // namespace lathe::kernels

LATHE_CUDA_BODY(copy_rows, CopyCuda)
LATHE_CUDA_BODY(fill_rows, FillCuda)
