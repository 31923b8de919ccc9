// What the bodies of the gated activations read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/gated/activation.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Those of gated.h that products end with.
enum class GateKind : uint8_t { silu, gelu_tanh, clamped_silu };

// And all of them.
enum class GatedKind : uint8_t { silu, gelu_tanh, clamped_silu, logistic };
constexpr GatedKind gated_kind(Activation activation) {
  return activation == Activation::silu ? GatedKind::silu : GatedKind::gelu_tanh;
}

// What the clamped one clamps to.
inline constexpr double gate_limit = 7.0;
// And what it multiplies its gate by before the logistic function.
inline constexpr double clamped_silu_alpha = 1.702;

struct GatedForwardArgs {
  GatedKind kind;
  DType dtype;  // f32 | bf16 | f16
  Matrix out;
  ConstMatrix gate, up;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct GatedBackwardArgs {
  GatedKind kind;
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
