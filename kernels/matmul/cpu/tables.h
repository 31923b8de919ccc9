// Pairs of bf16 from the codes of nf4 by tables instead of arithmetic. For this folder's sources only.
//
// A block of a row has 16 values: codebook · scale, rounded to bf16. A vector pair has room for those of four rows, and one permutation
// looks up 32 of them: four rows × four runs × a pair (nf4_place in gemm.h). 32 weights take a permutation, half a mask and
// three quarters of a shift, where multiplying and rounding each took seven instructions. The permutation and the product read three
// registers each, as does vpternlog, and get in each other's way: so a mask serves two lookups.
#pragma once

#include "kernels/matmul/cpu/gemm.h"
#include "kernels/nf4/cpu_codebook.h"
#include "kernels/simd/transpose.h"

#if defined(LATHE_ISA_avx512_bf16)
namespace lathe::kernels::LATHE_ISA {

// Values of the rows q, q + 4, q + 8, q + 12 of a block, 16 words each.
struct Nf4RowTables {
  __m512i low, high;
  // scales: those of the block's 16 rows, from row q on.
  static LATHE_INLINE Nf4RowTables of(const Nf4Table& codebook, const float* scales) {
    const auto row = [&](int i) { return (__m512)(codebook.values * splat(scales[4 * i])); };
    return {(__m512i)_mm512_cvtne2ps_pbh(row(1), row(0)), (__m512i)_mm512_cvtne2ps_pbh(row(3), row(2))};
  }
};

// The places in a table of 64 bytes of codes: pair j of each run is that in the low byte of each word of `words(j)`.
struct Nf4Places {
  __m512i even, odd;
  static LATHE_INLINE Nf4Places of(const uint8_t* codes) {
    const VecU bytes = load_words(codes);
    const VecU rows = {0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x10101010, 0x10101010, 0x10101010, 0x10101010,
                       0x20202020, 0x20202020, 0x20202020, 0x20202020, 0x30303030, 0x30303030, 0x30303030, 0x30303030};
    const __m512i codes_only = _mm512_set1_epi32(0x0f0f0f0f);
    constexpr int and_or = 0xea;  // (a & b) | c
    return {_mm512_ternarylogic_epi32((__m512i)bytes, codes_only, (__m512i)rows, and_or),
            _mm512_ternarylogic_epi32(_mm512_srli_epi16((__m512i)bytes, 4), codes_only, (__m512i)rows, and_or)};
  }
  static LATHE_INLINE VecU look_up(const Nf4Places& self, int pair, const Nf4RowTables& tables) {
    const __m512i words = pair % 2 == 0 ? self.even : self.odd;
    return (VecU)_mm512_permutex2var_epi16(tables.low, pair < 2 ? words : _mm512_srli_epi16(words, 8), tables.high);
  }
};

}  // namespace lathe::kernels::LATHE_ISA
#endif
