// Bytes widened to words, and stores that round alike in every instruction set. For cpu*.cpp only, as vec.h.
#pragma once

#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

// `lanes` bytes as words, from 0 to 255 or from −128 to 127.
LATHE_INLINE VecU load_bytes(const uint8_t* p) {
#if defined(LATHE_AVX512)
  return (VecU)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(LATHE_AVX2)
  return (VecU)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
  return (VecU)_mm_cvtepu8_epi32(_mm_loadu_si32(p));
#endif
}
LATHE_INLINE VecI load_signed_bytes(const int8_t* p) {
#if defined(LATHE_AVX512)
  return (VecI)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(LATHE_AVX2)
  return (VecI)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
  return (VecI)_mm_cvtepi8_epi32(_mm_loadu_si32(p));
#endif
}
// 2 · lanes bytes as words of two, the first in the lowest eight bits.
LATHE_INLINE VecU load_pairs_of_bytes(const uint8_t* p) {
  VecH pairs;
  __builtin_memcpy(&pairs, p, sizeof pairs);
  return widen(pairs);
}
// The first n of them; the others are 0.
LATHE_INLINE VecI load_signed_bytes(const int8_t* p, int n) {
  if (n == lanes) return load_signed_bytes(p);
  int8_t bytes[lanes] = {};
  for (int i = 0; i < n; ++i) bytes[i] = p[i];
  return load_signed_bytes(bytes);
}

// The first n lanes, rounded to nearest even with subnormals kept: store() takes a bf16's for zero where the
// instruction does.
LATHE_INLINE void store_exactly(float* p, Vec v, int n) { n == lanes ? store(p, v) : store_partial(p, v, n); }
LATHE_INLINE void store_exactly(bf16* p, Vec v, int n) {
  const VecH bits = to_bf16_bits_exactly(v);
  if (n < lanes) return store_partial_bits(p, bits, n);
  __builtin_memcpy(p, &bits, sizeof bits);
}
LATHE_INLINE void store_exactly(f16* p, Vec v, int n) { n == lanes ? store(p, v) : store_partial(p, v, n); }

}  // namespace lathe::kernels::LATHE_ISA
