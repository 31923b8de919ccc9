// Pairs of bf16 from nf4 codes by lookup tables instead of arithmetic. For cpu.cpp beside it.
//
// A block of a row has 16 values: codebook · scale, rounded to bf16. A pair of vectors has room for those of four rows,
// and one permutation looks up 32 of them: four rows × four segments × a pair of neighbours (Nf4Format::place). 32
// weights take a permutation, half a mask and three quarters of a shift, where multiplying and rounding each took seven
// instructions. The permutation and the product read three registers each, as does vpternlog, and compete for ports: so
// one mask serves two lookups.
#pragma once

#include "kernels/nf4/cpu_codebook.h"
#include "kernels/simd/transpose.h"

#if defined(LATHE_ISA_avx512_bf16)
namespace lathe::kernels::LATHE_ISA {

// The values of a quad's rows q, q + 4, q + 8, q + 12, 16 halves of words each.
struct Nf4PairTables {
  __m512i low, high;
  // scales: those of the 16 rows, from row q on.
  LATHE_INLINE Nf4PairTables(const Nf4Table& codebook, const float* scales) {
    const auto row = [&](int i) { return (__m512)(codebook.values * splat(scales[4 * i])); };
    low = (__m512i)_mm512_cvtne2ps_pbh(row(1), row(0));
    high = (__m512i)_mm512_cvtne2ps_pbh(row(3), row(2));
  }
  Nf4PairTables() = default;
};

// Places in the tables for 64 bytes of codes. A pair of neighbours of each segment is looked up by two halves of a
// word.
struct Nf4TablePlaces {
  __m512i even, odd;
  Nf4TablePlaces() = default;
  LATHE_INLINE explicit Nf4TablePlaces(const uint8_t* codes) {
    const VecU bytes = load_words(codes);
    const VecU rows = {0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x10101010, 0x10101010, 0x10101010, 0x10101010,
                       0x20202020, 0x20202020, 0x20202020, 0x20202020, 0x30303030, 0x30303030, 0x30303030, 0x30303030};
    const __m512i codes_only = _mm512_set1_epi32(0x0f0f0f0f);
    constexpr int and_or = 0xea;  // (a & b) | c
    even = _mm512_ternarylogic_epi32((__m512i)bytes, codes_only, (__m512i)rows, and_or);
    odd = _mm512_ternarylogic_epi32(_mm512_srli_epi16((__m512i)bytes, 4), codes_only, (__m512i)rows, and_or);
  }
  LATHE_INLINE VecU look_up(int pair, const Nf4PairTables& tables) const {
    const __m512i words = pair % 2 == 0 ? even : odd;
    return (VecU)_mm512_permutex2var_epi16(tables.low, pair < 2 ? words : _mm512_srli_epi16(words, 8), tables.high);
  }
};

}  // namespace lathe::kernels::LATHE_ISA
#endif
