// What attention's specification shares with its bodies.
#pragma once

#include <cstdint>

#include "kernels/arguments/head_rows.h"

namespace lathe::kernels {

inline constexpr int64_t attention_chunk = 64;  // keys; a multiple of every KV page size in use

struct AttentionParams {
  float scale = 1.0f;    // of q·k, above 0, usually 1/√D
  int64_t window = 0;    // > 0: a query sees itself and the window − 1 keys before it
  float softcap = 0.0f;  // > 0: scores become softcap · tanh(score / softcap)
};

}  // namespace lathe::kernels
