// bf16 queries over int8 pages. Queries, and the weights of values, are quantised to 16 bits and cut into two bytes,
// which vpdpbusd multiplies with int8 keys and values and sums exactly, in any order.
//
//   query   q16 = round(q · 2^(14 − e)), 2^e ≤ the row's largest |q| < 2^(e+1), clamped to ±32639 and cut into signed
//           bytes: q16 = 256·high + low. Of a bf16 that is above the largest's 128th nothing is rounded but ±255·2^7,
//           to ±32639.
//   score   float(Σ q16·k) · 2^(e − 14): the sum, below 2^31 up to 512 elements, is rounded once.
//   weight  w16 = round(w · (65535 / W)), W the largest w of the row's chunk, 2^-110 at least, cut into unsigned bytes.
//   output  float(Σ w16·v) · (W / 65535).
// Of q·k the keys are the unsigned side: 128 is added to their bytes, and 128·Σ q16 (a zero point) subtracted from the
// sum.
#pragma once

#include "kernels/attention/cpu/products.h"

#if defined(LATHE_ISA_avx512_bf16)
namespace lathe::kernels::LATHE_ISA {

inline constexpr int64_t quantised_dim_most = 512;  // elements of a head whose sums fit 32 bits
inline constexpr int64_t quantised_dim_step = 16;   // they are read in 16 bytes

LATHE_INLINE bool quantises_queries(int64_t head_dim) {
  return head_dim % quantised_dim_step == 0 && head_dim <= quantised_dim_most;
}

LATHE_INLINE VecI dot_bytes(VecI unsigned_bytes, VecI signed_bytes, VecI sum) {
  return (VecI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)unsigned_bytes, (__m512i)signed_bytes);
}
// Modulo 2^32: a sum over keys to which 128 was added may pass 2^31 until the zero point is subtracted.
LATHE_INLINE VecI add_integers(VecI a, VecI b) { return (VecI)((VecU)a + (VecU)b); }
LATHE_INLINE VecI subtract_integers(VecI a, VecI b) { return (VecI)((VecU)a - (VecU)b); }
LATHE_INLINE VecI join_bytes(VecI high, VecI low) { return (VecI)(((VecU)high << 8) + (VecU)low); }
LATHE_INLINE Vec to_float(VecI integers) { return (Vec)_mm512_cvtepi32_ps((__m512i)integers); }
LATHE_INLINE VecI to_integers(Vec v) { return (VecI)_mm512_cvtps_epi32((__m512)v); }
// 128 added to each byte, from signed to unsigned.
LATHE_INLINE VecI to_unsigned_bytes(VecI bytes) { return (VecI)((VecU)bytes ^ 0x80808080u); }

// Unsigned bytes on the left, signed ones on the right, four to a word; sums are integers of 32 bits.
struct Int8Dot {
  static constexpr int64_t width = 4;
  [[gnu::always_inline]] static Vec add(Vec left, Vec right, Vec sum) {
    return (Vec)dot_bytes((VecI)left, (VecI)right, (VecI)sum);
  }
  // Weights are stored as floats, and quantised when all of a chunk are there.
  static constexpr int64_t columns_per_word = 1;
  [[gnu::always_inline]] static void store_columns(float* p, int64_t stride, Vec first, Vec second) {
    F32Dot::store_columns(p, stride, first, second);
  }
};

// ---- queries ----

// What makes a score of a sum: (sum − zero_point) · scale.
struct QueryScale {
  int32_t zero_point;
  float scale;
};

// A row's high and low bytes, [dim] each. Infinite or NaN anywhere: the scale is NaN.
LATHE_INLINE QueryScale quantise_query(const bf16* row, int64_t dim, int8_t* high, int8_t* low) {
  VecI most{};  // bits of a magnitude: a NaN is above all numbers
  for (int64_t d = 0; d < dim; d += lanes)
    most = (VecI)_mm512_max_epi32((__m512i)most, (__m512i)((VecI)load(row + d) & 0x7fffffff));
  const float largest = __builtin_bit_cast(float, _mm512_reduce_max_epi32((__m512i)most));
  const Vec highest = splat(largest), least_bf16 = splat(0x1p-133f);
  // A row of zeros is quantised as the smallest bf16 would be.
  const Vec exponent = (Vec)_mm512_getexp_ps((__m512)max(least_bf16, highest)) - splat(14.0f);
  VecI sum{};
  for (int64_t d = 0; d < dim; d += lanes) {
    const VecI exact = to_integers((Vec)_mm512_scalef_ps((__m512)load(row + d), (__m512)-exponent));
    const VecI clamped =
        (VecI)_mm512_max_epi32(_mm512_min_epi32((__m512i)exact, _mm512_set1_epi32(32639)), _mm512_set1_epi32(-32639));
    const VecI upper = (clamped + 128) >> 8;
    sum += clamped;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high + d), _mm512_cvtepi32_epi8((__m512i)upper));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low + d), _mm512_cvtepi32_epi8((__m512i)clamped));
  }
  const Vec scale = (Vec)_mm512_scalef_ps((__m512)splat(1.0f), (__m512)exponent);
  return {_mm512_reduce_add_epi32((__m512i)sum) * 128, scale[0] + (largest - largest)};
}

// ---- weights of values ----

inline constexpr float weight_most = 65535.0f;

// W of a row's chunk, what its weights are multiplied with, and their sums.
LATHE_INLINE Vec weight_range(Vec largest) { return max(largest, splat(0x1p-110f)); }
LATHE_INLINE Vec weight_factor(Vec range) { return splat(weight_most) / range; }
LATHE_INLINE Vec weight_scale(Vec range) { return range * splat(1.0f / weight_most); }

// Bytes of the weights of keys j, j + 32, j + 16 and j + 48 are in lane j: in this order no byte has to change its
// lane.
struct WeightBytes {
  VecI high, low;
};
LATHE_INLINE WeightBytes split_weights(const VecI (&w)[4]) {
  const VecI first = w[0] | (w[1] << 16), second = w[2] | (w[3] << 16);
  const VecI even = (VecI)((VecU){} + 0x00ff00ffu);
  return {(VecI)((VecU)first >> 8 & (VecU)even) | (second & ~even), (first & even) | ((second & even) << 8)};
}

// A row's quantised weights in scratch: 16 words of high bytes, 16 of low ones, and the scale.
inline constexpr int64_t weight_words = 16, weight_scale_place = 2 * weight_words;

// From the weights of the first V vectors of keys.
template <int V>
LATHE_INLINE void store_quantised_weights(float* row, const Vec (&weights)[V]) {
  Vec largest = zero();
  for (int v = 0; v < V; ++v) largest = max(weights[v], largest);
  const Vec range = weight_range(splat(max_lanes(largest))), factor = weight_factor(range);
  VecI integers[4]{};
  for (int v = 0; v < V; ++v) integers[v] = to_integers(weights[v] * factor);
  const WeightBytes bytes = split_weights(integers);
  store(row, (Vec)bytes.high);
  store(row + weight_words, (Vec)bytes.low);
  row[weight_scale_place] = weight_scale(range)[0];
}

}  // namespace lathe::kernels::LATHE_ISA
#endif
