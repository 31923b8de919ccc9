// bf16 queries, and weights of values, as whole numbers of 16 bits in two bytes: what vpdpbusd multiplies with int8 keys and values and
// sums exactly, in any order. Included by this folder's sources only.
//
//   query   q16 = round(q · 2^(14 − e)), 2^e ≤ the row's largest |q| < 2^(e+1), held to ±32639 and cut into signed bytes: q16 = 256·high +
//           low. Of a bf16 that is above the largest's 128th nothing is rounded but ±255·2^7, to ±32639.
//   score   float(Σ q16·k) · 2^(e − 14): the sum, below 2^31 up to 512 elements, is rounded once.
//   weight  w16 = round(w · (65535 / W)), W the largest w of the row's chunk, 2^-110 at least, cut into unsigned bytes.
//   output  float(Σ w16·v) · (W / 65535).
// Keys are the unsigned side of q·k: their bytes are turned by 128, for which 128·Σ q16 is taken off.
#pragma once

#include "kernels/simd/vec.h"

#if defined(LATHE_ISA_avx512_bf16)
namespace lathe::kernels::LATHE_ISA {

inline constexpr int64_t byte_dim_most = 512;  // elements of a head whose sums fit 32 bits
inline constexpr int64_t byte_dim_unit = 16;   // the runs that they are read in
inline constexpr int64_t digit_bits = 8;

LATHE_INLINE bool sums_as_bytes(int64_t head_dim) { return head_dim % byte_dim_unit == 0 && head_dim <= byte_dim_most; }

LATHE_INLINE VecI sum_bytes(VecI unsigned_bytes, VecI signed_bytes, VecI sum) {
  return (VecI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)unsigned_bytes, (__m512i)signed_bytes);
}
// Modulo 2^32: a sum over keys that were turned by 128 may pass 2^31 until the offset is taken off.
LATHE_INLINE VecI add_whole(VecI a, VecI b) { return (VecI)((VecU)a + (VecU)b); }
LATHE_INLINE VecI subtract_whole(VecI a, VecI b) { return (VecI)((VecU)a - (VecU)b); }
LATHE_INLINE VecI join_digits(VecI high, VecI low) { return (VecI)(((VecU)high << digit_bits) + (VecU)low); }
LATHE_INLINE Vec to_float(VecI whole) { return (Vec)_mm512_cvtepi32_ps((__m512i)whole); }
LATHE_INLINE VecI to_whole(Vec v) { return (VecI)_mm512_cvtps_epi32((__m512)v); }

// What a sum over keys that were turned by 128 becomes: (sum − offset) · unit.
struct QueryUnit {
  int32_t offset;
  float unit;
};

// A row's digits, each plane [dim] bytes. Infinite or NaN anywhere: the unit is NaN.
LATHE_INLINE QueryUnit split_query(const bf16* row, int64_t dim, int8_t* high, int8_t* low) {
  VecI most{};  // bits of a magnitude: a NaN is above all numbers
  for (int64_t d = 0; d < dim; d += lanes)
    most = (VecI)_mm512_max_epi32((__m512i)most, (__m512i)((VecI)load(row + d) & 0x7fffffff));
  const float largest = __builtin_bit_cast(float, _mm512_reduce_max_epi32((__m512i)most));
  const Vec highest = splat(largest), least_bf16 = splat(0x1p-133f);
  // A row of zeros is split as the smallest bf16 would be.
  const Vec exponent = (Vec)_mm512_getexp_ps((__m512)max(least_bf16, highest)) - splat(14.0f);
  VecI sum{};
  for (int64_t d = 0; d < dim; d += lanes) {
    const VecI exact = to_whole((Vec)_mm512_scalef_ps((__m512)load(row + d), (__m512)-exponent));
    const VecI held =
        (VecI)_mm512_max_epi32(_mm512_min_epi32((__m512i)exact, _mm512_set1_epi32(32639)), _mm512_set1_epi32(-32639));
    const VecI upper = (held + 128) >> digit_bits;
    sum += held;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high + d), _mm512_cvtepi32_epi8((__m512i)upper));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low + d), _mm512_cvtepi32_epi8((__m512i)held));
  }
  const Vec unit = (Vec)_mm512_scalef_ps((__m512)splat(1.0f), (__m512)exponent);
  return {_mm512_reduce_add_epi32((__m512i)sum) * 128, unit[0] + (largest - largest)};
}

inline constexpr float weight_most = 65535.0f;

// The largest weight of a row's chunk, and what turns its weights into whole numbers and their sums back.
LATHE_INLINE Vec held_weight(Vec largest) { return max(largest, splat(0x1p-110f)); }
LATHE_INLINE Vec weight_factor(Vec held) { return splat(weight_most) / held; }
LATHE_INLINE Vec weight_unit(Vec held) { return held * splat(1.0f / weight_most); }

// Digits of the weights of keys j, j + 32, j + 16 and j + 48, in the bytes of lane j: in this order no byte has to change its lane.
struct WeightDigits {
  VecI high, low;
};
LATHE_INLINE WeightDigits split_weights(const VecI (&w)[4]) {
  const VecI first = w[0] | (w[1] << 16), second = w[2] | (w[3] << 16);
  const VecI even = (VecI)((VecU){} + 0x00ff00ffu);
  return {(VecI)((VecU)first >> 8 & (VecU)even) | (second & ~even), (first & even) | ((second & even) << 8)};
}

// A row's weights of the first V vectors of keys as its digits in scratch: 16 words of high ones, 16 of low ones, and the unit.
inline constexpr int64_t weight_words = 16, weight_unit_place = 2 * weight_words;
template <int V>
LATHE_INLINE void store_weight_digits(float* row, const Vec (&weights)[V]) {
  Vec largest = zero();
  for (int v = 0; v < V; ++v) largest = max(weights[v], largest);
  const Vec held = held_weight(splat(max_lanes(largest))), factor = weight_factor(held);
  VecI whole[4]{};
  for (int v = 0; v < V; ++v) whole[v] = to_whole(weights[v] * factor);
  const WeightDigits digits = split_weights(whole);
  store(row, (Vec)digits.high);
  store(row + weight_words, (Vec)digits.low);
  row[weight_unit_place] = weight_unit(held)[0];
}

}  // namespace lathe::kernels::LATHE_ISA
#endif
