// Codes of a block (ggml_formats.h) as pairs of 16-bit integers, for the rows of one vector. For this folder's sources
// only.
//
// A decoder has, of block `b` of a panel (the vector's first row is `vector` · lanes):
//   pair     the codes of pair `i`
//   quad     the codes of neighbours 4t … 4t + 3, in the bytes of a word, with a sign where `signed_codes`
//   offset   what is subtracted from a code: a value is scale · (code − offset)
//   scale    of the half of the block that `half` counts (one half where the format has one scale)
//   minimum  of formats that have one, of the same half: a value is scale · code + minimum
#pragma once

#include "kernels/matmul/weights/ggml/bodies.h"
#include "kernels/simd/bytes.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

typedef int16_t VecS __attribute__((vector_size(4 * lanes)));
typedef uint16_t VecHalves __attribute__((vector_size(4 * lanes)));

inline constexpr int ggml_vectors = ggml::panel_rows / lanes;

LATHE_INLINE const uint8_t* rows_of_word(const uint8_t* plane, int word, int vector) {
  return plane + word * ggml::bits_plane + vector * lanes * 4;
}
// A plane's word shifted so that bits [from, …) of each half come to bit `to`.
LATHE_INLINE VecU moved_bits(VecU word, int from, int to) {
  return from > to ? word >> (from - to) : word << (to - from);
}

LATHE_INLINE VecU nibble_pair(const uint8_t* nibbles, int i, int vector) {
  const VecU word = load_words(rows_of_word(nibbles, i % 8 / 2, vector));
  if (i % 2 == 1 && i / 8 == 1) return (VecU)((VecHalves)word >> 12);  // nothing to mask
  return (word >> (i % 2 * 8 + i / 8 * 4)) & 0x000f000fu;
}
// The codes of neighbours 4t … 4t + 3, in the bytes of a word.
LATHE_INLINE VecU nibble_quad(const uint8_t* nibbles, int t, int vector) {
  return (load_words(rows_of_word(nibbles, t % 4, vector)) >> (t / 4 * 4)) & 0x0f0f0f0fu;
}
LATHE_INLINE VecU five_bit_quad(const uint8_t* codes, int t, int vector) {
  const VecU bits = moved_bits(load_words(rows_of_word(codes, 0, vector)), t, 4) & 0x10101010u;
  return nibble_quad(codes + ggml::bits_plane, t, vector) | bits;
}
LATHE_INLINE VecU six_bit_quad(const uint8_t* codes, int t, int vector) {
  const VecU two_bits = moved_bits(load_words(rows_of_word(codes, t / 4, vector)), t % 4 * 2, 4) & 0x30303030u;
  return nibble_quad(codes + ggml::two_bits_plane, t, vector) | two_bits;
}
LATHE_INLINE VecU two_bit_quad(const uint8_t* codes, int t, int vector) {
  return moved_bits(load_words(rows_of_word(codes, t / 4, vector)), t % 4 * 2, 0) & 0x03030303u;
}
LATHE_INLINE VecU three_bit_quad(const uint8_t* codes, int t, int vector) {
  const VecU bits = moved_bits(load_words(rows_of_word(codes, 0, vector)), t, 2) & 0x04040404u;
  return two_bit_quad(codes + ggml::bits_plane, t, vector) | bits;
}
// The bytes of `values` that the bytes of a quad, none above 15, are indices of.
LATHE_INLINE VecU look_up_quad(const int8_t (&values)[16], VecU quad) {
  const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
#if defined(LATHE_AVX512)
  return (VecU)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), (__m512i)quad);
#elif defined(LATHE_AVX2)
  return (VecU)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), (__m256i)quad);
#else
  return (VecU)_mm_shuffle_epi8(table, (__m128i)quad);
#endif
}
// Pair 2t or 2t + 1 of a quad of positive codes.
LATHE_INLINE VecU pair_of_quad(VecU quad, int i) {
  return i % 2 == 0 ? quad & 0x00ff00ffu : (VecU)((VecHalves)quad >> 8);
}
LATHE_INLINE VecU pair_of_signed_quad(VecU quad, int i) {
  return (VecU)(i % 2 == 0 ? ((VecS)quad << 8) >> 8 : (VecS)quad >> 8);
}

LATHE_INLINE Vec f16_scale(const uint8_t* scales, int vector) {
  return load(reinterpret_cast<const f16*>(scales) + vector * lanes);
}
LATHE_INLINE Vec unsigned_scale(const uint8_t* scales, int vector) {
  return __builtin_convertvector((VecI)load_bytes(scales + vector * lanes), Vec);
}
LATHE_INLINE Vec signed_scale(const uint8_t* scales, int vector) {
  return load(reinterpret_cast<const int8_t*>(scales) + vector * lanes);
}

template <class Format>
struct Decoder;

// Formats of 32 whose scales are those of the file.
template <class Format>
struct OwnScales {
  static constexpr bool has_minimum = Format::has_minimum;
  static constexpr int scales = 1;
  static LATHE_INLINE const uint8_t* block(const uint8_t* panel, int64_t b) { return panel + b * Format::block_bytes; }
  static LATHE_INLINE Vec scale(const uint8_t* panel, int64_t b, int, int vector) {
    return f16_scale(block(panel, b), vector);
  }
  static LATHE_INLINE Vec minimum(const uint8_t* panel, int64_t b, int, int vector) {
    return f16_scale(block(panel, b) + ggml::f16_scales, vector);
  }
};

// Q4_K, Q5_K: whole numbers of 6 bits in bytes, times the unit's d and dmin; exact in f32.
template <class Format>
struct ScalesOfK {
  static constexpr bool has_minimum = true;
  static constexpr int scales = 1;
  static LATHE_INLINE const uint8_t* block(const uint8_t* panel, int64_t b) { return ggml::block_of<Format>(panel, b); }
  static LATHE_INLINE Vec scale(const uint8_t* panel, int64_t b, int, int vector) {
    return f16_scale(ggml::unit_of<Format>(panel, b), vector) * unsigned_scale(block(panel, b), vector);
  }
  static LATHE_INLINE Vec minimum(const uint8_t* panel, int64_t b, int, int vector) {
    const Vec dmin = f16_scale(ggml::unit_of<Format>(panel, b) + ggml::f16_scales, vector);
    return -(dmin * unsigned_scale(block(panel, b) + ggml::byte_scales, vector));
  }
};

// Q3_K, Q6_K, of 16 neighbours each, and IQ4_XS: bytes with a sign, times the unit's d.
template <class Format>
struct SignedScales {
  static constexpr bool has_minimum = false;
  static constexpr int scales = Format::scales;
  static LATHE_INLINE const uint8_t* block(const uint8_t* panel, int64_t b) { return ggml::block_of<Format>(panel, b); }
  static LATHE_INLINE Vec scale(const uint8_t* panel, int64_t b, int half, int vector) {
    const uint8_t* scales = block(panel, b) + half * ggml::byte_scales;
    return f16_scale(ggml::unit_of<Format>(panel, b), vector) * signed_scale(scales, vector);
  }
};

// Q2_K: of 16 neighbours, a scale and a minimum in the halves of a byte, times the unit's d and dmin.
template <class Format>
struct ScalesOfNibbles {
  static constexpr bool has_minimum = true;
  static constexpr int scales = 2;
  static LATHE_INLINE const uint8_t* block(const uint8_t* panel, int64_t b) { return ggml::block_of<Format>(panel, b); }
  static LATHE_INLINE VecI both(const uint8_t* panel, int64_t b, int half, int vector) {
    return (VecI)load_bytes(block(panel, b) + half * ggml::byte_scales + vector * lanes);
  }
  static LATHE_INLINE Vec scale(const uint8_t* panel, int64_t b, int half, int vector) {
    const Vec d = f16_scale(ggml::unit_of<Format>(panel, b), vector);
    return d * __builtin_convertvector(both(panel, b, half, vector) & 15, Vec);
  }
  static LATHE_INLINE Vec minimum(const uint8_t* panel, int64_t b, int half, int vector) {
    const Vec dmin = f16_scale(ggml::unit_of<Format>(panel, b) + ggml::f16_scales, vector);
    return -(dmin * __builtin_convertvector(both(panel, b, half, vector) >> 4, Vec));
  }
};

// MXFP4: 2^(e − 128), of which the two smallest are subnormal.
template <class Format>
struct PowersOfTwo {
  static constexpr bool has_minimum = false;
  static constexpr int scales = 1;
  static LATHE_INLINE const uint8_t* block(const uint8_t* panel, int64_t b) { return panel + b * Format::block_bytes; }
  static LATHE_INLINE Vec scale(const uint8_t* panel, int64_t b, int, int vector) {
    const VecU e = load_bytes(block(panel, b) + vector * lanes), subnormal = (VecU)((VecI)e < 2);
    return (Vec)((((e + 1) << 21) & subnormal) | (((e - 1) << 23) & ~subnormal));
  }
};

template <class Scales, class Format, int32_t code_offset>
struct Nibbles : Scales {
  static constexpr int32_t offset = code_offset;
  static constexpr bool signed_codes = false;
  static LATHE_INLINE VecU pair(const uint8_t* panel, int64_t b, int i, int vector) {
    return nibble_pair(Scales::block(panel, b) + Format::codes, i, vector);
  }
  static LATHE_INLINE VecU quad(const uint8_t* panel, int64_t b, int t, int vector) {
    return nibble_quad(Scales::block(panel, b) + Format::codes, t, vector);
  }
};

// quad_of(codes, t, vector): two_bit_quad, three_bit_quad, five_bit_quad or six_bit_quad.
template <class Scales, class Format, int32_t code_offset, VecU (*quad_of)(const uint8_t*, int, int)>
struct MoreBits : Scales {
  static constexpr int32_t offset = code_offset;
  static constexpr bool signed_codes = false;
  static LATHE_INLINE VecU quad(const uint8_t* panel, int64_t b, int t, int vector) {
    return quad_of(Scales::block(panel, b) + Format::codes, t, vector);
  }
  static LATHE_INLINE VecU pair(const uint8_t* panel, int64_t b, int i, int vector) {
    return pair_of_quad(quad(panel, b, i / 2, vector), i);
  }
};

// Nibbles that are indices of values.
template <class Scales, class Format>
struct Indices : Scales {
  static constexpr int32_t offset = 0;
  static constexpr bool signed_codes = true;
  static LATHE_INLINE VecU quad(const uint8_t* panel, int64_t b, int t, int vector) {
    return look_up_quad(Format::values, nibble_quad(Scales::block(panel, b) + Format::codes, t, vector));
  }
  static LATHE_INLINE VecU pair(const uint8_t* panel, int64_t b, int i, int vector) {
    return pair_of_signed_quad(quad(panel, b, i / 2, vector), i);
  }
};

template <>
struct Decoder<ggml::Q4_0> : Nibbles<OwnScales<ggml::Q4_0>, ggml::Q4_0, 8> {};
template <>
struct Decoder<ggml::Q4_1> : Nibbles<OwnScales<ggml::Q4_1>, ggml::Q4_1, 0> {};
template <>
struct Decoder<ggml::Q5_0> : MoreBits<OwnScales<ggml::Q5_0>, ggml::Q5_0, 16, five_bit_quad> {};
template <>
struct Decoder<ggml::Q5_1> : MoreBits<OwnScales<ggml::Q5_1>, ggml::Q5_1, 0, five_bit_quad> {};
template <>
struct Decoder<ggml::Q4_K> : Nibbles<ScalesOfK<ggml::Q4_K>, ggml::Q4_K, 0> {};
template <>
struct Decoder<ggml::Q5_K> : MoreBits<ScalesOfK<ggml::Q5_K>, ggml::Q5_K, 0, five_bit_quad> {};
template <>
struct Decoder<ggml::Q6_K> : MoreBits<SignedScales<ggml::Q6_K>, ggml::Q6_K, 32, six_bit_quad> {};
template <>
struct Decoder<ggml::Q2_K> : MoreBits<ScalesOfNibbles<ggml::Q2_K>, ggml::Q2_K, 0, two_bit_quad> {};
template <>
struct Decoder<ggml::Q3_K> : MoreBits<SignedScales<ggml::Q3_K>, ggml::Q3_K, 4, three_bit_quad> {};
template <>
struct Decoder<ggml::IQ4_NL> : Indices<OwnScales<ggml::IQ4_NL>, ggml::IQ4_NL> {};
template <>
struct Decoder<ggml::IQ4_XS> : Indices<SignedScales<ggml::IQ4_XS>, ggml::IQ4_XS> {};
template <>
struct Decoder<ggml::MXFP4> : Indices<PowersOfTwo<ggml::MXFP4>, ggml::MXFP4> {};

template <>
struct Decoder<ggml::Q8_0> : OwnScales<ggml::Q8_0> {
  static constexpr int32_t offset = 0;
  static constexpr bool signed_codes = true;
  static LATHE_INLINE VecU pair(const uint8_t* panel, int64_t b, int i, int vector) {
    return pair_of_signed_quad(quad(panel, b, i / 2, vector), i);
  }
  static LATHE_INLINE VecU quad(const uint8_t* panel, int64_t b, int t, int vector) {
    return load_words(rows_of_word(block(panel, b) + ggml::Q8_0::codes, t, vector));
  }
};

// What unpack() leaves of a format's blocks: [scales][16 rows] f32, as many minima, [16 pairs][16 rows], with the
// offset subtracted.
template <int scale_count, bool with_minimum>
struct Unpacked {
  static constexpr bool has_minimum = with_minimum;
  static constexpr int scales = scale_count;
  static constexpr int32_t offset = 0;
  static constexpr int64_t pairs = scales * (1 + has_minimum) * ggml::bits_plane;
  static constexpr int64_t block_bytes = pairs + 16 * ggml::bits_plane;
  static LATHE_INLINE const uint8_t* block(const uint8_t* panel, int64_t b) { return panel + b * block_bytes; }
  static LATHE_INLINE VecU pair(const uint8_t* panel, int64_t b, int i, int vector) {
    return load_words(rows_of_word(panel + b * block_bytes + pairs, i, vector));
  }
  static LATHE_INLINE Vec scale(const uint8_t* panel, int64_t b, int half, int vector) {
    return (Vec)load_words(rows_of_word(panel + b * block_bytes, half, vector));
  }
  static LATHE_INLINE Vec minimum(const uint8_t* panel, int64_t b, int half, int vector) {
    return scale(panel, b, scales + half, vector);
  }
};

}  // namespace lathe::kernels::LATHE_ISA
