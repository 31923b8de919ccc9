// What a bulk tensor copy knows of a matrix in memory, or of several. Made on the host, handed to a kernel as
// `const __grid_constant__ TensorMap`, or copied to device memory, at multiples of 64 bytes (ptx/tensor_copy.h).
#pragma once

#include "kernels/cuda/device.h"
#if LATHE_SIMT
#include "kernels/simt/tensor_copy.h"
#else
#include <cuda.h>
#endif

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

#if LATHE_SIMT
using TensorMap = ::lathe::simt::TensorMap;
#else
using TensorMap = CUtensorMap;
#endif

// A matrix of 16-bit elements, bf16 or f16 alike, whose rows lie `row_stride` elements apart; or so many of them,
// rows · row_stride elements apart, where `matrices` is not 0: copies say which one then.
struct TensorMapArgs {
  const void* data;
  int64_t rows, columns, row_stride;
  int box_rows, box_columns;  // at most 256 and 64
  int64_t matrices = 0;
};

// Empty, or why bulk copies cannot serve that matrix: addresses and strides that are not multiples of 16 bytes.
// Who has such a matrix takes another kernel.
const char* why_no_tensor_map(const TensorMapArgs& args);
// For boxes in 128-byte swizzle. Throws Error where why_no_tensor_map() gives a reason, or the driver refuses.
TensorMap make_tensor_map(const TensorMapArgs& args);

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
