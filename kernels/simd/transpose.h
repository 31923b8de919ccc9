// Rows of 4-byte words turned into columns: squares in registers, and strips of 16 bytes on the way from memory. For
// cpu*.cpp only, as vec.h.
#pragma once

#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

LATHE_INLINE VecU load_words(const void* p) {
  VecU v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
LATHE_INLINE void store_words(void* p, VecU v) { __builtin_memcpy(p, &v, sizeof v); }
// The first n words, or halves of words; the others are 0.
LATHE_INLINE VecU load_words(const void* p, int n) {
  return n == lanes ? load_words(p) : (VecU)load_partial(static_cast<const float*>(p), n);
}
LATHE_INLINE VecH load_halves(const void* p, int n) {
  if (n < lanes) return load_partial_bits(p, n);
  VecH h;
  __builtin_memcpy(&h, p, sizeof h);
  return h;
}

// a0 b0 a1 b1 … of the first halves, and of the second halves.
LATHE_INLINE VecU interleave_low(VecU a, VecU b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
LATHE_INLINE VecU interleave_high(VecU a, VecU b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// v[i][j] ↔ v[j][i]. Interleaving row i with row i + lanes/2 turns the bits of (row, lane) by one place; after
// log2(lanes) rounds row and lane have changed places.
LATHE_INLINE void transpose(VecU (&v)[lanes]) {
  for (int round = 1; round < lanes; round *= 2) {
    VecU t[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes / 2; ++i) {
      t[2 * i] = interleave_low(v[i], v[i + lanes / 2]);
      t[2 * i + 1] = interleave_high(v[i], v[i + lanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) v[i] = t[i];
  }
}

// Within each quarter of four lanes: the lanes of a and b taken in turn, of the quarter's lower half or its upper.
LATHE_INLINE Vec interleave_lower(Vec a, Vec b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
LATHE_INLINE Vec interleave_upper(Vec a, Vec b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// Four lanes from each of rows 0, 4, 8 …, which four(row) loads, one quarter of the vector from each: the loads do half
// of the transposition, which leaves 2 shuffles a row to the one port that has them. (transpose() takes 4; attention
// with it was a third slower.)
template <class Four>
LATHE_INLINE Vec gather_quarters(Four four) {
#if defined(LATHE_AVX512)
  // Two inserts of 128 bits and one of 256: 6 to 9 % faster than three masked broadcasts.
  const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(four(0)), four(4), 1);
  const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(four(8)), four(12), 1);
  return (Vec)_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_insertf128_ps(_mm256_castps128_ps256(four(0)), four(4), 1);
#else
  return (Vec)four(0);
#endif
}

// Each quarter of four lanes of the four vectors is a square of words, turned in its place.
LATHE_INLINE void transpose_squares(Vec (&v)[4]) {
  const Vec lower02 = interleave_lower(v[0], v[2]), lower13 = interleave_lower(v[1], v[3]);
  const Vec upper02 = interleave_upper(v[0], v[2]), upper13 = interleave_upper(v[1], v[3]);
  v[0] = interleave_lower(lower02, lower13);
  v[1] = interleave_upper(lower02, lower13);
  v[2] = interleave_lower(upper02, upper13);
  v[3] = interleave_upper(upper02, upper13);
}

// 16 bytes of each of `lanes` rows, from byte on: out[i] holds their i-th four bytes.
LATHE_INLINE void transpose_words(const void* const* rows, int64_t byte, Vec (&out)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    out[i] = gather_quarters([=](int row) {
      return _mm_loadu_ps(reinterpret_cast<const float*>(static_cast<const char*>(rows[i + row]) + byte));
    });
  transpose_squares(out);
}
// The same for rows that are `stride` bytes apart.
LATHE_INLINE void transpose_words(const char* first, int64_t stride, Vec (&out)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    out[i] = gather_quarters(
        [=](int row) { return _mm_loadu_ps(reinterpret_cast<const float*>(first + (i + row) * stride)); });
  transpose_squares(out);
}

// Each word holds two bf16, the first in its low half.
LATHE_INLINE Vec first_of_pairs(VecU pairs) { return (Vec)(pairs << 16); }
LATHE_INLINE Vec second_of_pairs(VecU pairs) { return (Vec)(pairs & 0xffff0000u); }
LATHE_INLINE VecU make_pairs(VecH first, VecH second) {
  return __builtin_convertvector(first, VecU) | (__builtin_convertvector(second, VecU) << 16);
}
// 2 · lanes consecutive floats, rounded, as pairs of neighbours.
LATHE_INLINE VecU neighbours_to_pairs(Vec first_half, Vec second_half) {
#if defined(LATHE_ISA_avx512_bf16)
  return (VecU)_mm512_cvtne2ps_pbh((__m512)second_half, (__m512)first_half);
#else
  VecH halves[2] = {to_bf16_bits(first_half), to_bf16_bits(second_half)};
  return load_words(halves);
#endif
}

}  // namespace lathe::kernels::LATHE_ISA
