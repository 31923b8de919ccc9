// Philox 4×32-10 (core/random.h), a counter in each lane. For cpu*.cpp only, as vec.h.
#pragma once

#include "core/philox.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

LATHE_INLINE VecU splat_words(uint32_t word) { return word - VecU{}; }

// The upper and lower halves of a · b: products of the even lanes and of the odd ones, put together again.
LATHE_INLINE void multiply_wide(VecU a, uint32_t b, VecU* high, VecU* low) {
  const VecU factor = splat_words(b);
#if defined(LATHE_AVX512)
  const __m512i even = _mm512_mul_epu32((__m512i)a, (__m512i)factor);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), (__m512i)factor);
  *high = (VecU)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
  *low = (VecU)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
#elif defined(LATHE_AVX2)
  const __m256i even = _mm256_mul_epu32((__m256i)a, (__m256i)factor);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), (__m256i)factor);
  *high = (VecU)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  *low = (VecU)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
  const __m128i even = _mm_mul_epu32((__m128i)a, (__m128i)factor);
  const __m128i odd = _mm_mul_epu32(_mm_srli_epi64((__m128i)a, 32), (__m128i)factor);
  *high = (VecU)_mm_blend_epi16(_mm_srli_epi64(even, 32), odd, 0xcc);
  *low = (VecU)_mm_blend_epi16(even, _mm_slli_epi64(odd, 32), 0xcc);
#endif
}

LATHE_INLINE void philox4x32_10(VecU (&counter)[4], const uint32_t (&seed)[2]) {
  uint32_t key[2] = {seed[0], seed[1]};
  for (int round = 0; round < Philox::rounds; ++round) {
    VecU high0, low0, high2, low2;
    multiply_wide(counter[0], Philox::multiplier[0], &high0, &low0);
    multiply_wide(counter[2], Philox::multiplier[1], &high2, &low2);
    counter[0] = high2 ^ counter[1] ^ splat_words(key[0]);
    counter[1] = low2;
    counter[2] = high0 ^ counter[3] ^ splat_words(key[1]);
    counter[3] = low0;
    key[0] += Philox::increment[0];
    key[1] += Philox::increment[1];
  }
}

// Which of `lanes` consecutive counters lane l has, so that words_in_order() puts their words into order.
LATHE_INLINE VecU counter_of_lane() {
  VecU offsets{};
  for (int l = 0; l < lanes; ++l) offsets[l] = static_cast<uint32_t>(lanes / 4 * (l % 4) + l / 4);
  return offsets;
}
// Then words[i] holds the words lanes · i, lanes · i + 1, … of the counters one after another.
LATHE_INLINE void words_in_order(VecU (&words)[4]) {
  Vec squares[4] = {(Vec)words[0], (Vec)words[1], (Vec)words[2], (Vec)words[3]};
  transpose_squares(squares);
  for (int i = 0; i < 4; ++i) words[i] = (VecU)squares[i];
}

}  // namespace lathe::kernels::LATHE_ISA
