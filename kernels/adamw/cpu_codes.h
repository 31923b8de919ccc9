// Values and nearest codes of a dynamic map (kernels/quantization/dynamic_map.h) for 32 elements at a time, with the
// bits of nearest_code(). Tables are looked up by permutations of registers: 1.8 ns an element for both moments, where
// gathers took 5.4 and one by one 5.7 (Zen 4). For cpu*.cpp only, as vec.h; sets below AVX-512 have no permutation of
// words and take the elements one by one.
#pragma once

#include "kernels/adamw/cpu.h"
#include "kernels/simd/bytes.h"

#if defined(LATHE_AVX512)

namespace lathe::kernels::LATHE_ISA {

inline constexpr int code_group = 2 * lanes;

// 256 floats as the lower and the upper halves of their bits, 32 to a register.
struct FloatTable {
  __m512i lower[8], upper[8];
};
LATHE_INLINE FloatTable float_table(const float* values) {
  FloatTable table;
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const VecU first = (VecU)load(values + i * code_group), second = (VecU)load(values + i * code_group + lanes);
    VecH lower[2] = {narrow(first & 0xffffu), narrow(second & 0xffffu)},
         upper[2] = {narrow(first >> 16), narrow(second >> 16)};
    __builtin_memcpy(&table.lower[i], lower, sizeof lower);
    __builtin_memcpy(&table.upper[i], upper, sizeof upper);
  }
  return table;
}

// halves[code] for 32 codes in words, of which bit6 and bit7 are those bits.
LATHE_INLINE __m512i look_up(const __m512i (&halves)[8], __m512i codes, __mmask32 bit6, __mmask32 bit7) {
  const __m512i low = _mm512_mask_blend_epi16(bit6, _mm512_permutex2var_epi16(halves[0], codes, halves[1]),
                                              _mm512_permutex2var_epi16(halves[2], codes, halves[3]));
  const __m512i high = _mm512_mask_blend_epi16(bit6, _mm512_permutex2var_epi16(halves[4], codes, halves[5]),
                                               _mm512_permutex2var_epi16(halves[6], codes, halves[7]));
  return _mm512_mask_blend_epi16(bit7, low, high);
}

// table[code] for 32 codes in words.
LATHE_INLINE void look_up(const FloatTable& table, __m512i codes, Vec& first, Vec& second) {
  const __mmask32 bit6 = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(64));
  const __mmask32 bit7 = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(128));
  const __m512i lower = look_up(table.lower, codes, bit6, bit7), upper = look_up(table.upper, codes, bit6, bit7);
  typedef uint16_t Words __attribute__((vector_size(64)));
  first = (Vec)__builtin_shufflevector((Words)lower, (Words)upper, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7,
                                       39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47);
  second = (Vec)__builtin_shufflevector((Words)lower, (Words)upper, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22,
                                        54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
}

LATHE_INLINE void decode(const FloatTable& values, const uint8_t* codes, Vec& first, Vec& second) {
  look_up(values, _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes))), first, second);
}

// The nearest code of x in [−1, 1] or the one below it. The map cuts the magnitudes of decade i, up to 10^(i − 6), into
// 2^i equal cells (twice as many in the unsigned map) with a value in the middle of each. The number of the cell as a
// function of the magnitude is a line in each decade; each of the seven is flatter than the one before, so that the
// lowest of them is the right one. A threshold stands where a cell begins, or a fifth of a cell above at the start of a
// decade: a quarter of a cell is subtracted, which gives the nearest code or the one before.
template <bool is_signed>
LATHE_INLINE VecI code_below(Vec x) {
  const Vec magnitude = is_signed ? abs(x) : x;
  Vec cell = fma(magnitude, splat(1e6f / 0.9f), splat(8.0f / 9.0f));
  float scale = 2e5f / 0.9f, first = 16.0f / 9.0f;
#pragma GCC unroll 6
  for (int i = 1; i < 7; ++i, scale *= 0.2f, first *= 2.0f)
    cell = min(cell, fma(magnitude, splat(scale), splat(first)));
  const float quarter = 0.25f;
  const Vec below = is_signed ? cell - splat(quarter) : fma(cell, splat(2.0f), splat(-1.0f - quarter));
  VecI code = __builtin_convertvector(below, VecI);
  if (is_signed) code = 127 + (code ^ ((VecI)x >> 31));  // 126 − code for x < 0
  // Codes beyond the ends are brought back: that of 1 in one map, that of −1, which has none, in the other, and NaN's.
  return (VecI)_mm512_min_epi32(_mm512_max_epi32((__m512i)code, _mm512_setzero_si512()), _mm512_set1_epi32(255));
}

template <bool is_signed>
LATHE_INLINE void encode(const FloatTable& thresholds, Vec first, Vec second, uint8_t* codes) {
  const VecI below[2] = {code_below<is_signed>(first), code_below<is_signed>(second)};
  const VecH words[2] = {narrow((VecU)below[0]), narrow((VecU)below[1])};
  __m512i both;
  __builtin_memcpy(&both, words, sizeof both);
  Vec first_threshold, second_threshold;
  look_up(thresholds, both, first_threshold, second_threshold);
  const VecI nearest[2] = {below[0] - (VecI)(first > first_threshold), below[1] - (VecI)(second > second_threshold)};
  for (int i = 0; i < 2; ++i)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i * lanes), _mm512_cvtepi32_epi8((__m512i)nearest[i]));
}

}  // namespace lathe::kernels::LATHE_ISA

#endif
