// Lookups in the codebook. For cpu*.cpp only, as vec.h.
#pragma once

#include "kernels/nf4/codebook.h"
#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

#if defined(LATHE_AVX512)
struct Nf4Table {
  Vec values;
};
LATHE_INLINE Nf4Table nf4_table() { return {load(nf4_codebook.values)}; }
// The values of the codes in the low four bits of each word; what stands above them does not matter.
LATHE_INLINE Vec look_up(const Nf4Table& table, VecU codes) {
  return (Vec)_mm512_permutexvar_ps((__m512i)codes, (__m512)table.values);
}
#elif defined(LATHE_AVX2)
struct Nf4Table {
  Vec low, high;
};
LATHE_INLINE Nf4Table nf4_table() { return {load(nf4_codebook.values), load(nf4_codebook.values + 8)}; }
LATHE_INLINE Vec look_up(const Nf4Table& table, VecU codes) {
  const __m256 low = _mm256_permutevar8x32_ps((__m256)table.low, (__m256i)codes);
  const __m256 high = _mm256_permutevar8x32_ps((__m256)table.high, (__m256i)codes);
  return (Vec)_mm256_blendv_ps(low, high, (__m256)(codes << 28));  // by bit 3, moved to the sign
}
#else
struct Nf4Table {};
LATHE_INLINE Nf4Table nf4_table() { return {}; }
LATHE_INLINE Vec look_up(const Nf4Table&, VecU codes) {
  Vec result;
  for (int i = 0; i < lanes; ++i) result[i] = nf4_codebook.values[codes[i] & 15u];
  return result;
}
#endif

}  // namespace lathe::kernels::LATHE_ISA
