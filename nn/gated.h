// The gated activation that a config names.
#pragma once

#include "autograd/ops/gated.h"
#include "nn/config.h"

namespace lathe::nn {

// gate, up [T, F] → [T, F].
inline autograd::Variable gated(Activation activation, const autograd::Variable& gate, const autograd::Variable& up) {
  switch (activation) {
    case Activation::silu: return autograd::swiglu(gate, up);
    case Activation::gelu_tanh: return autograd::geglu(gate, up);
    case Activation::clamped_silu: break;
  }
  return autograd::clamped_swiglu(gate, up);
}

}  // namespace lathe::nn
