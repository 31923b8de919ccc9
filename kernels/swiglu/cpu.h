// What the CPU bodies of swiglu read and write: plain pointers, strides in elements, a range of rows.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

struct SwigluForwardArgs {
  DType dtype;  // f32 | bf16
  void* out;
  const void* gate;
  const void* up;
  int64_t out_stride, gate_stride, up_stride;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct SwigluBackwardArgs {
  DType dtype;  // f32 | bf16
  void* grad_gate;
  void* grad_up;
  const void* grad_out;
  const void* gate;
  const void* up;
  int64_t grad_gate_stride, grad_up_stride, grad_out_stride, gate_stride, up_stride;
  int64_t columns;
  int64_t row_begin, row_end;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(swiglu_forward_rows, SwigluForwardArgs)
LATHE_CPU_BODY(swiglu_backward_rows, SwigluBackwardArgs)
