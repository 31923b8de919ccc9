// What the bodies of the gated activations read and write, and the CPU's.
#pragma once

#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

enum class Activation { silu, gelu_tanh };

struct GatedForwardArgs {
  Activation activation;
  DType dtype;  // f32 | bf16
  Matrix out;
  ConstMatrix gate, up;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct GatedBackwardArgs {
  Activation activation;
  DType dtype;  // f32 | bf16
  Matrix grad_gate, grad_up;
  ConstMatrix grad_out, gate, up;
  int64_t columns;
  int64_t row_begin, row_end;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(gated_forward_rows, GatedForwardArgs)
LATHE_CPU_BODY(gated_backward_rows, GatedBackwardArgs)
