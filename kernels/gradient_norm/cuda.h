// The CUDA body of gradient_norm.h. Pointers are device memory.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"

namespace lathe::kernels {

// sums[k] = Σ x² of elements [k · 4096, (k + 1) · 4096) below count.
struct SumOfSquaresCuda {
  DType dtype;  // f32 | bf16 | f16
  const void* x;
  int64_t count;
  double* sums;
};

template <DeviceKind>
void sum_of_squares_blocks(const SumOfSquaresCuda& args);

}  // namespace lathe::kernels
