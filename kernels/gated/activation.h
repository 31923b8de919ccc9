// The activation of a gate (gated.h).
#pragma once

#include <cstdint>

namespace lathe::kernels {

enum class Activation : uint8_t { silu, gelu_tanh };

}  // namespace lathe::kernels
