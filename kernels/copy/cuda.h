// The CUDA bodies of copy and fill. Pointers are device memory.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/copy/walk.h"

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

template <DeviceKind>
void copy_rows(const CopyCuda& args);
template <DeviceKind>
void fill_rows(const FillCuda& args);

}  // namespace lathe::kernels
