// The f32 vector of the instruction set being compiled: 4, 8 or 16 lanes. Included by cpu*.cpp only, inside whose
// build LATHE_ISA names the set. Everything here is inlined, in that set's namespace: no symbol compiled with
// wider instructions may ever be linked into code that runs on a smaller machine. For the same reason a cpu.cpp calls
// no inline function of the standard library on its own data; builtins and the functions below do the work.
//
// Sums are never contracted by the compiler (-ffp-contract=off): a fused multiply-add is written fma().
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/inline.h"

#if !defined(LATHE_ISA)
#error "kernels/simd/vec.h is for cpu.cpp, which the build compiles once for each instruction set"
#endif

namespace lathe::kernels::LATHE_ISA {

#if defined(LATHE_ISA_avx512) || defined(LATHE_ISA_avx512_bf16)
#define LATHE_AVX512 1
inline constexpr int lanes = 16;
#elif defined(LATHE_ISA_avx2)
#define LATHE_AVX2 1
inline constexpr int lanes = 8;
#else
inline constexpr int lanes = 4;
#endif

// Vector extensions of GCC and clang: + − · / and comparisons work lane by lane.
typedef float Vec __attribute__((vector_size(4 * lanes)));
typedef int32_t VecI __attribute__((vector_size(4 * lanes)));
typedef uint32_t VecU __attribute__((vector_size(4 * lanes)));
typedef uint16_t VecH __attribute__((vector_size(2 * lanes)));  // bf16 or f16 bits

LATHE_INLINE Vec splat(float x) { return x - Vec{}; }  // x − 0 keeps the sign of −0
LATHE_INLINE Vec zero() { return Vec{}; }

LATHE_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(LATHE_AVX512)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
// The scalar that matches a lane of fma().
LATHE_INLINE float fma(float a, float b, float c) {
#if defined(LATHE_AVX512) || defined(LATHE_AVX2)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

LATHE_INLINE Vec select(VecI mask, Vec yes, Vec no) { return (Vec)((mask & (VecI)yes) | (~mask & (VecI)no)); }
// Second operand where either is NaN, as maxps. (Written a > b ? a : b, GCC 12 compares and blends when one is a
// constant.)
LATHE_INLINE Vec max(Vec a, Vec b) {
#if defined(LATHE_AVX512)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return (Vec)_mm_max_ps((__m128)a, (__m128)b);
#endif
}
LATHE_INLINE Vec min(Vec a, Vec b) {
#if defined(LATHE_AVX512)
  return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return (Vec)_mm_min_ps((__m128)a, (__m128)b);
#endif
}
LATHE_INLINE Vec abs(Vec a) { return (Vec)((VecI)a & 0x7fffffff); }
LATHE_INLINE Vec sqrt(Vec a) {
#if defined(LATHE_AVX512)
  return (Vec)_mm512_sqrt_ps((__m512)a);
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_sqrt_ps((__m256)a);
#else
  return (Vec)_mm_sqrt_ps((__m128)a);
#endif
}

LATHE_INLINE VecI lane_numbers() {  // 0, 1, 2, …
  VecI v;
  for (int i = 0; i < lanes; ++i) v[i] = i;
  return v;
}
// All ones in the first n lanes.
LATHE_INLINE VecI first_lanes(int n) { return lane_numbers() < n; }

// Loads and stores need no alignment. The partial ones touch exactly the first n < lanes elements; other lanes are 0.
LATHE_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
LATHE_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

// 16 to 32 bits and back (of values below 2^16): written out, as GCC 12 takes them apart and puts them together again.
LATHE_INLINE VecU widen(VecH bits) {
#if defined(LATHE_AVX512)
  return (VecU)_mm512_cvtepu16_epi32((__m256i)bits);
#elif defined(LATHE_AVX2)
  return (VecU)_mm256_cvtepu16_epi32((__m128i)bits);
#else
  return (VecU)_mm_cvtepu16_epi32(_mm_set_epi64x(0, (long long)bits));
#endif
}
LATHE_INLINE VecH narrow(VecU words) {
#if defined(LATHE_AVX512)
  return (VecH)_mm512_cvtepi32_epi16((__m512i)words);
#elif defined(LATHE_AVX2)
  const __m256i packed = _mm256_packus_epi32((__m256i)words, (__m256i)words);
  return (VecH)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
  return (VecH)_mm_cvtsi128_si64(_mm_packus_epi32((__m128i)words, (__m128i)words));
#endif
}

LATHE_INLINE Vec from_bf16_bits(VecH bits) { return (Vec)(widen(bits) << 16); }
// bf16 bits in 32-bit words, rounded to nearest even by integers: exact for subnormals too.
LATHE_INLINE VecU to_bf16_words(Vec v) {
  const VecU u = (VecU)v;
  const VecU rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const VecU quiet = (u >> 16) | 0x40u;
  const VecU is_nan = (VecU)(v != v);
  return (is_nan & quiet) | (~is_nan & rounded);
}
LATHE_INLINE VecH to_bf16_bits_exactly(Vec v) { return narrow(to_bf16_words(v)); }
// The same, but the instruction takes subnormals (below 2^-126) for zero, as the products of that set do.
LATHE_INLINE VecH to_bf16_bits(Vec v) {
#if defined(LATHE_ISA_avx512_bf16)
  return (VecH)_mm512_cvtneps_pbh((__m512)v);
#else
  return to_bf16_bits_exactly(v);
#endif
}
LATHE_INLINE Vec load(const bf16* p) {
  VecH h;
  __builtin_memcpy(&h, p, sizeof h);
  return from_bf16_bits(h);
}
LATHE_INLINE void store(bf16* p, Vec v) {
  const VecH h = to_bf16_bits(v);
  __builtin_memcpy(p, &h, sizeof h);
}
// Copies whose length is a variable would become calls of memcpy; masks where the set has them.
LATHE_INLINE Vec load_partial(const float* p, int n) {
#if defined(LATHE_AVX512)
  return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_maskload_ps(p, (__m256i)first_lanes(n));
#else
  Vec v{};  // (Pairs of bf16 are read by it, too, which lie at any even address.)
  for (int i = 0; i < n; ++i) __builtin_memcpy((char*)&v + 4 * i, (const char*)p + 4 * i, 4);
  return v;
#endif
}
LATHE_INLINE void store_partial(float* p, Vec v, int n) {
#if defined(LATHE_AVX512)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined(LATHE_AVX2)
  _mm256_maskstore_ps(p, (__m256i)first_lanes(n), (__m256)v);
#else
  for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}
LATHE_INLINE VecH load_partial_bits(const void* p, int n) {
#if defined(LATHE_AVX512)
  return (VecH)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
#else
  VecH h{};
  for (int i = 0; i < n; ++i) __builtin_memcpy((char*)&h + 2 * i, (const char*)p + 2 * i, 2);
  return h;
#endif
}
LATHE_INLINE void store_partial_bits(void* p, VecH h, int n) {
#if defined(LATHE_AVX512)
  _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)h);
#else
  for (int i = 0; i < n; ++i) __builtin_memcpy((char*)p + 2 * i, (const char*)&h + 2 * i, 2);
#endif
}
LATHE_INLINE Vec load_partial(const bf16* p, int n) { return from_bf16_bits(load_partial_bits(p, n)); }
LATHE_INLINE void store_partial(bf16* p, Vec v, int n) { store_partial_bits(p, to_bf16_bits(v), n); }

// f16: F16C's conversions, which round to nearest even and keep subnormals; the baseline does each lane on its own.
LATHE_INLINE Vec from_f16_bits(VecH bits) {
#if defined(LATHE_AVX512)
  return (Vec)_mm512_cvtph_ps((__m256i)bits);
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_cvtph_ps((__m128i)bits);
#else
  // Exponent and mantissa moved into place, scaled by 2^112 (exact, subnormals too); 65536 and up was infinity or NaN.
  const VecU wide = widen(bits);
  const Vec magnitude = (Vec)((wide & 0x7fffu) << 13) * splat(0x1.0p112f);
  const VecU special = (VecU)(magnitude >= splat(65536.0f)) & 0x7f800000u;
  return (Vec)((VecU)magnitude | special | ((wide & 0x8000u) << 16));
#endif
}
LATHE_INLINE VecH to_f16_bits(Vec v) {
#if defined(LATHE_AVX512)
  return (VecH)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(LATHE_AVX2)
  return (VecH)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  // As f16(float) of core/dtype.h, lane by lane.
  const VecU sign = ((VecU)v >> 16) & 0x8000u;
  const VecU magnitude = (VecU)v & 0x7fffffffu;
  const VecU normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  const VecU tiny = (VecU)((Vec)magnitude + splat(0.5f)) - 0x3f000000u;
  const VecU is_tiny = (VecU)(magnitude < 0x38800000u), is_huge = (VecU)(magnitude >= 0x477ff000u);
  const VecU is_nan = (VecU)(magnitude > 0x7f800000u);
  const VecU finite = (is_tiny & tiny) | (~is_tiny & normal);
  return narrow(sign | (is_huge & (0x7c00u | (is_nan & 0x200u))) | (~is_huge & finite));
#endif
}
LATHE_INLINE Vec load(const f16* p) {
  VecH h;
  __builtin_memcpy(&h, p, sizeof h);
  return from_f16_bits(h);
}
LATHE_INLINE void store(f16* p, Vec v) {
  const VecH h = to_f16_bits(v);
  __builtin_memcpy(p, &h, sizeof h);
}
LATHE_INLINE Vec load_partial(const f16* p, int n) {
  VecH h{};
  __builtin_memcpy(&h, p, static_cast<size_t>(n) * sizeof(f16));
  return from_f16_bits(h);
}
LATHE_INLINE void store_partial(f16* p, Vec v, int n) {
  const VecH h = to_f16_bits(v);
  __builtin_memcpy(p, &h, static_cast<size_t>(n) * sizeof(f16));
}

// i8: whole numbers.
LATHE_INLINE Vec load(const int8_t* p) {
#if defined(LATHE_AVX512)
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  return (Vec)_mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_loadu_si32(p)));
#endif
}
LATHE_INLINE Vec load_partial(const int8_t* p, int n) {
  Vec v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

// v rounded to T and back: what a store followed by a load gives.
template <class T>
LATHE_INLINE Vec round_to(Vec v);
template <>
inline __attribute__((always_inline)) Vec round_to<float>(Vec v) {
  return v;
}
template <>
inline __attribute__((always_inline)) Vec round_to<bf16>(Vec v) {
#if defined(LATHE_ISA_avx512_bf16)
  return from_bf16_bits(to_bf16_bits(v));
#else
  return (Vec)(to_bf16_words(v) << 16);
#endif
}
template <>
inline __attribute__((always_inline)) Vec round_to<f16>(Vec v) {
  return from_f16_bits(to_f16_bits(v));
}

// Horizontal reductions in one fixed tree: halves are folded onto each other. In registers: the same tree through
// memory, which the compiler does not see through, took a tenth of attention's time.
#if defined(LATHE_AVX512)
LATHE_INLINE __m256 lower_half(__m512 v) { return _mm512_castps512_ps256(v); }
LATHE_INLINE __m256 upper_half(__m512 v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }
#endif
#if defined(LATHE_AVX512) || defined(LATHE_AVX2)
LATHE_INLINE __m128 lower_half(__m256 v) { return _mm256_castps256_ps128(v); }
LATHE_INLINE __m128 upper_half(__m256 v) { return _mm256_extractf128_ps(v, 1); }
LATHE_INLINE __m128 folded_sum(__m256 v) { return lower_half(v) + upper_half(v); }
LATHE_INLINE __m128 folded_max(__m256 v) { return _mm_max_ps(lower_half(v), upper_half(v)); }
#endif
#if defined(LATHE_AVX512)
LATHE_INLINE __m128 folded_sum(__m512 v) { return folded_sum(lower_half(v) + upper_half(v)); }
LATHE_INLINE __m128 folded_max(__m512 v) { return folded_max(_mm256_max_ps(lower_half(v), upper_half(v))); }
LATHE_INLINE __m128 sum_to_four(Vec v) { return folded_sum((__m512)v); }
LATHE_INLINE __m128 max_to_four(Vec v) { return folded_max((__m512)v); }
#elif defined(LATHE_AVX2)
LATHE_INLINE __m128 sum_to_four(Vec v) { return folded_sum((__m256)v); }
LATHE_INLINE __m128 max_to_four(Vec v) { return folded_max((__m256)v); }
#else
LATHE_INLINE __m128 sum_to_four(Vec v) { return (__m128)v; }
LATHE_INLINE __m128 max_to_four(Vec v) { return (__m128)v; }
#endif
LATHE_INLINE float sum_lanes(Vec v) {
  __m128 four = sum_to_four(v);
  four = four + _mm_movehl_ps(four, four);
  return _mm_cvtss_f32(four + _mm_shuffle_ps(four, four, 1));
}
LATHE_INLINE float max_lanes(Vec v) {
  __m128 four = max_to_four(v);
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ps(four, _mm_shuffle_ps(four, four, 1)));
}

// exp to within 2 ulp: x = n·ln 2 + r, |r| ≤ ln 2 / 2, a degree-7 polynomial p, then p · 2^n: in one step where the set
// has it, else the exponent is added in two halves, so that results near the largest and the smallest finite numbers
// come out. −inf gives 0. NaN passes max and min as their second operand and stays NaN.
LATHE_INLINE Vec exp(Vec x) {
  const Vec clamped = min(splat(89.0f), max(splat(-104.0f), x));
  const Vec magic = splat(12582912.0f);  // 1.5·2^23: adding it rounds to the nearest integer
  const Vec shifted = fma(clamped, splat(1.44269504088896341f), magic);
  const Vec n = shifted - magic;
  Vec r = fma(n, splat(-0.693145751953125f), clamped);
  r = fma(n, splat(-1.42860682030941723212e-6f), r);
  Vec p = splat(1.98412698e-4f);
  p = fma(p, r, splat(1.3888889e-3f));
  p = fma(p, r, splat(8.3333333e-3f));
  p = fma(p, r, splat(4.1666667e-2f));
  p = fma(p, r, splat(1.6666667e-1f));
  p = fma(p, r, splat(5.0e-1f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
#if defined(LATHE_AVX512)
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  const VecI whole = (VecI)shifted - (VecI)magic;
  const VecI half = whole >> 1;
  return p * (Vec)((half + 127) << 23) * (Vec)((whole - half + 127) << 23);
#endif
}

LATHE_INLINE Vec sigmoid(Vec x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }
// 1 − 2/(e^{2x} + 1), exact limits at ±inf; below 0.1, where that cancels, the series to x⁷.
LATHE_INLINE Vec tanh(Vec x) {
  const Vec direct = splat(1.0f) - splat(2.0f) / (exp(x + x) + splat(1.0f));
  const Vec square = x * x;
  Vec p = splat(-17.0f / 315.0f);
  p = fma(p, square, splat(2.0f / 15.0f));
  p = fma(p, square, splat(-1.0f / 3.0f));
  return select((VecI)(abs(x) < splat(0.1f)), fma(p * square, x, x), direct);
}

}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {
using namespace LATHE_ISA;  // for the bodies, which stand here (kernels/dispatch.h)
}
