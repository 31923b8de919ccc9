// Tiles of AMX: 16 rows of 64 bytes each. For amx*.cpp and amx/*.cpp only, which the build compiles for that set.
//
// multiply_pairs(c, a, b), where a is [rows][16 pairs of bf16 along k] and b is [16 pairs along k][columns]: for each
// element of c a chain of fused multiply-adds over the pairs' first halves and one over their second halves, both from
// zero, whose sum is added to it. Subnormals are zeros, before and after. (Held to the bit against those formulas on
// Sapphire Rapids: 256000 sums.)
#pragma once

#include <cstdint>

#include "kernels/simd/inline.h"
#include "kernels/simd/tile_configuration.h"

#if !defined(LATHE_ISA_amx)
#error "kernels/simd/amx.h is for amx*.cpp"
#endif

namespace lathe::kernels::LATHE_ISA {

inline constexpr int64_t tile_side = 16;  // rows, and words of a row

// While one lives, all eight tiles of this thread have their full size. Setting them up takes 360 cycles.
class TileScope {
 public:
  LATHE_INLINE TileScope() { asm volatile("ldtilecfg %0" ::"m"(tile_configuration)); }
  LATHE_INLINE ~TileScope() { asm volatile("tilerelease" ::: "memory"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// Rows are `stride` bytes apart; 0 makes 16 of one.
template <int tile>
LATHE_INLINE void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(from), "r"(stride) : "memory");
}
template <int tile>
LATHE_INLINE void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(to), "r"(stride) : "memory");
}
template <int tile>
LATHE_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
template <int c, int a, int b>
LATHE_INLINE void multiply_pairs() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}
// Exact sums of 64 bytes along k, four to a word: a's and b's bytes have the signs that the names say.
template <int c, int a, int b>
LATHE_INLINE void multiply_signed_signed() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}
template <int c, int a, int b>
LATHE_INLINE void multiply_unsigned_signed() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}

}  // namespace lathe::kernels::LATHE_ISA
