// The CUDA body of gradient_norm.h. Pointers are device memory.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"

namespace lathe::kernels {

// sums[k] = Σ x² of elements [k · 4096, (k + 1) · 4096) below count.
struct SquaredTensor {
  const void* x;
  double* sums;
  int64_t count;
};

struct SumOfSquaresCuda {
  DType dtype;  // f32 | bf16 | f16
  const SquaredTensor* tensors;
  int64_t count;
};

template <DeviceKind>
void sum_of_squares_blocks(const SumOfSquaresCuda& args);

// What sum_of_squares_blocks() left of a tensor.
struct BlockSums {
  const double* sums;
  int64_t count;
};

// As clip_factor() of gradient_norm.h.
struct ClipFactorCuda {
  const BlockSums* tensors;  // of the gradients, then of what is watched
  int64_t count, gradients;
  double max_norm, loss_scale;
  double* clip;
};

template <DeviceKind>
void clip_factor(const ClipFactorCuda& args);

}  // namespace lathe::kernels
