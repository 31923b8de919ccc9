// What the bodies of the gated activations read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/gated/activation.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct GatedForwardArgs {
  Activation activation;
  DType dtype;  // f32 | bf16 | f16
  Matrix out;
  ConstMatrix gate, up;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct GatedBackwardArgs {
  Activation activation;
  DType dtype;  // f32 | bf16 | f16
  Matrix grad_gate, grad_up;
  ConstMatrix grad_out, gate, up;
  int64_t columns;
  int64_t row_begin, row_end;
};

// cpu.cpp: rows [row_begin, row_end).
template <Isa>
void gated_forward_rows(GatedForwardArgs args);
template <Isa>
void gated_backward_rows(GatedBackwardArgs args);

// cuda.cu: all rows, in the device's memory.
template <DeviceKind>
void gated_forward_rows(const GatedForwardArgs& args);
template <DeviceKind>
void gated_backward_rows(const GatedBackwardArgs& args);

}  // namespace lathe::kernels
