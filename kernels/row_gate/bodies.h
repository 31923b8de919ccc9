// What the bodies of row_gate read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct RowGateForwardArgs {
  DType dtype;  // f32 | bf16 | f16
  Matrix out;
  ConstMatrix gate, x, residual;
  int64_t columns;  // of all but gate, which has one
  int64_t row_begin, row_end;
};

struct RowGateBackwardArgs {
  DType dtype;
  Matrix grad_gate, grad_x;
  ConstMatrix grad_out, gate, x;
  int64_t columns;
  int64_t row_begin, row_end;
};

// cpu.cpp: rows [row_begin, row_end).
template <Isa>
void row_gate_forward_rows(RowGateForwardArgs args);
template <Isa>
void row_gate_backward_rows(RowGateBackwardArgs args);

// cuda.cu: all rows, in the device's memory.
template <DeviceKind>
void row_gate_forward_rows(const RowGateForwardArgs& args);
template <DeviceKind>
void row_gate_backward_rows(const RowGateBackwardArgs& args);

}  // namespace lathe::kernels
