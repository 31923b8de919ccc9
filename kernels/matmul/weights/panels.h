// How weights lie in panels on the CPU: panel p holds rows [p · panel_width, (p + 1) · panel_width), side by side along
// k.
#pragma once

#include <cstdint>

#include "kernels/simd/inline.h"

namespace lathe::kernels::gemm {

inline constexpr int64_t panel_width = 32;
inline constexpr int64_t narrow_width = 16;  // of NarrowPanels

// A panel of codes is cut into groups of 64 or 32 along k that share a scale: the rows' scales in f32, then their
// codes.
inline constexpr int64_t scale_bytes = panel_width * 4;
template <class Format>
LATHE_INLINE constexpr int64_t group_bytes(int64_t group) {
  return scale_bytes + Format::code_bytes(group);
}

// Codes are decoded in chunks of so many neighbours along k, which a group has one or two of.
inline constexpr int64_t decode_chunk = 32;

}  // namespace lathe::kernels::gemm
