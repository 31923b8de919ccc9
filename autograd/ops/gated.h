// Gated activations (kernels/gated/gated.h): out = silu(gate) · up, out = gelu_tanh(gate) · up, the clamped one of
// gpt-oss, and out = σ(gate) · up. Saves gate and up. The output is recomputed for a down projection that needs its
// input again (LoRA, full fine-tuning): keeping it would add half as much again to what an MLP saves, and computing it
// is a pass over memory beside three matrix products.
#pragma once

#include "autograd/variable.h"

namespace lathe::autograd {

// gate, up [T, F] → [T, F].
Variable swiglu(const Variable& gate, const Variable& up);
Variable geglu(const Variable& gate, const Variable& up);
Variable clamped_swiglu(const Variable& gate, const Variable& up);
Variable glu(const Variable& gate, const Variable& up);
// gate and up as the halves of one [T, 2F].
Variable swiglu(const Variable& gate_up);
Variable geglu(const Variable& gate_up);

}  // namespace lathe::autograd
