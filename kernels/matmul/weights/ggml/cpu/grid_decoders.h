// Decoders (decoders.h) of formats whose codes are indices of a grid. They have, too,
//   eight   the codes of neighbours 8g … 8g + 7, as two quads
// because a look-up brings as many, and its cost is that of the product: an entry is loaded for each row by itself (8
// loads of 8 bytes and what joins them are 24 instructions for 64 weights; gathers were not tried).
#pragma once

#include "kernels/matmul/weights/ggml/cpu/decoders.h"
#include "kernels/matmul/weights/ggml/grids.h"

namespace lathe::kernels::LATHE_ISA {

typedef uint8_t VecBytes __attribute__((vector_size(4 * lanes)));

inline constexpr int quarters = lanes / 4;

LATHE_INLINE VecU join_quarters(const __m128i (&of)[quarters]) {
#if defined(LATHE_AVX512)
  const __m512i low = _mm512_castsi256_si512(_mm256_set_m128i(of[1], of[0]));
  return (VecU)_mm512_inserti64x4(low, _mm256_set_m128i(of[3], of[2]), 1);
#elif defined(LATHE_AVX2)
  return (VecU)_mm256_set_m128i(of[1], of[0]);
#else
  return (VecU)of[0];
#endif
}

// The even words of a quarter of a and of b, and the odd ones.
LATHE_INLINE VecU even_words(VecU a, VecU b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}
LATHE_INLINE VecU odd_words(VecU a, VecU b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
#else
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// Entries of 8 neighbours, of each row's index: the first four neighbours of each row, and the others.
template <class Index>
LATHE_INLINE void look_up(const uint64_t* grid, const Index* index, VecU (&quads)[2]) {
  const auto two = [ grid, index ](int row) __attribute__((always_inline)) {
    const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(grid + index[row]));
    return _mm_castpd_si128(_mm_loadh_pd(first, reinterpret_cast<const double*>(grid + index[row + 1])));
  };
  __m128i first[quarters], last[quarters];  // of four rows
#pragma GCC unroll 4
  for (int q = 0; q < quarters; ++q) first[q] = two(4 * q), last[q] = two(4 * q + 2);
  const VecU a = join_quarters(first), b = join_quarters(last);
  quads[0] = even_words(a, b), quads[1] = odd_words(a, b);
}
// Of 4 neighbours. The second of two is loaded with what lies behind it, by the instruction that joins them.
template <class Index>
LATHE_INLINE VecU look_up(const uint32_t* grid, const Index* index) {
  const auto two = [ grid, index ](int row) __attribute__((always_inline)) {
    return _mm_unpacklo_epi32(_mm_loadu_si32(grid + index[row]),
                              _mm_loadu_si128(reinterpret_cast<const __m128i*>(grid + index[row + 1])));
  };
  __m128i of[quarters];
#pragma GCC unroll 4
  for (int q = 0; q < quarters; ++q) of[q] = _mm_unpacklo_epi64(two(4 * q), two(4 * q + 2));
  return join_quarters(of);
}

// Bytes as halves of words, for up to eight rows: indices of more than eight bits go to the loads by way of memory, for
// taking them out of a register costs two instructions each.
inline constexpr int rows_at_once = lanes < 8 ? lanes : 8;
LATHE_INLINE __m128i halves_of_bytes(const uint8_t* p) {
  return _mm_cvtepu8_epi16(lanes < 8 ? _mm_loadu_si32(p) : _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
LATHE_INLINE __m128i load_eight_halves(const uint8_t* p) {
  return lanes < 8 ? _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))
                   : _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

// offset ± magnitude: bit 7 of a byte of `signs` is its sign.
template <int offset>
LATHE_INLINE VecU signed_codes_of(VecU magnitudes, VecU signs) {
#if defined(LATHE_AVX512)
  const __m512i zero = _mm512_set1_epi8(offset), m = (__m512i)magnitudes;
  return (VecU)_mm512_mask_sub_epi8(_mm512_add_epi8(zero, m), _mm512_movepi8_mask((__m512i)signs), zero, m);
#else
  const VecU ones = signs | 0x01010101u;  // bytes of one sign or the other, none 0
#if defined(LATHE_AVX2)
  const VecU codes = (VecU)_mm256_sign_epi8((__m256i)magnitudes, (__m256i)ones);
#else
  const VecU codes = (VecU)_mm_sign_epi8((__m128i)magnitudes, (__m128i)ones);
#endif
  return (VecU)((VecBytes)codes + static_cast<uint8_t>(offset));
#endif
}

// A word of signs in which those of neighbours 8g + 7 make the number of ones even.
LATHE_INLINE VecU with_last_signs(VecU words) {
  words &= 0x55ffffffu;
  const VecU pairs = words ^ words << 8, all = pairs ^ pairs << 16;  // the highest byte is of the four bytes
  return words | ((all ^ all << 1) & 0xaa000000u);
}
// The four bits that lie in their place.
LATHE_INLINE VecU bits_of_last_signs(VecU words) {
  VecU bits = words >> 25 & 0x55u;
  bits = (bits | bits >> 1) & 0x33u;
  return (bits | bits >> 2) & 0x0fu;
}

template <class Format>
struct GridDecoder {
  static constexpr bool has_minimum = false, signed_codes = false;
  static constexpr int scales = Format::scales;
  static constexpr int32_t offset = Format::grid_offset;

  static LATHE_INLINE const uint8_t* block(const uint8_t* panel, int64_t b) { return ggml::block_of<Format>(panel, b); }

  static LATHE_INLINE void eight(const uint8_t* panel, int64_t b, int g, int vector, VecU (&quads)[2]) {
    const uint8_t* const at = block(panel, b);
    look_up_eight(at, g, vector, quads);
    if constexpr (ggml::HasDeltas<Format>) {
      const VecU high = load_pairs_of_bytes(at + Format::high + 2 * vector * lanes);
      const VecU subtracted = high >> (scales == 1 ? 15 : 4 * g + 3) & 1u;
      const VecU added = offset + 1 - 2 * subtracted;
      for (VecU& quad : quads) quad = (VecU)((VecBytes)quad + (VecBytes)(added * 0x01010101u));
    } else {
      constexpr bool sevens = !std::is_same_v<Format, ggml::IQ2_S> && !std::is_same_v<Format, ggml::IQ3_S>;
      const VecU words = sign_words(at, vector), signs = sevens ? with_last_signs(words) : words;
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) quads[i] = signed_codes_of<offset>(quads[i], signs << (7 - 2 * g - i));
    }
  }
  static LATHE_INLINE VecU quad(const uint8_t* panel, int64_t b, int t, int vector) {
    VecU quads[2];
    eight(panel, b, t / 2, vector, quads);
    return quads[t % 2];
  }
  static LATHE_INLINE VecU pair(const uint8_t* panel, int64_t b, int i, int vector) {
    return pair_of_quad(quad(panel, b, i / 2, vector), i);
  }

  // d · unit · (2·sc + 1), exact in f32.
  static LATHE_INLINE Vec scale(const uint8_t* panel, int64_t b, int half, int vector) {
    const uint8_t* const unit = ggml::unit_of<Format>(panel, b);
    const VecI odd = (VecI)(2 * code_of_scale(unit, block(panel, b), b, half, vector) + 1);
    return f16_scale(unit, vector) * splat(Format::unit) * __builtin_convertvector(odd, Vec);
  }

 private:
  static LATHE_INLINE VecU sign_words(const uint8_t* at, int vector) {
    return load_words(rows_of_word(at + Format::signs, 0, vector));
  }

  static LATHE_INLINE void look_up_eight(const uint8_t* at, int g, int vector, VecU (&quads)[2]) {
    const auto* const grid = ggml::ExpandedGrid<Format>::words;
    const uint8_t* const low = at + Format::indices + vector * lanes;
    if constexpr (Format::grid_entries > 256) {
      if constexpr (Format::grid_neighbours == 8) {
        alignas(16) uint16_t index[lanes];
        put_indices(at, g, vector, index);
        look_up(grid, index, quads);
      } else {
        alignas(16) uint16_t index[2][lanes];
        put_indices(at, 2 * g, vector, index[0]);
        put_indices(at, 2 * g + 1, vector, index[1]);
        quads[0] = look_up(grid, index[0]), quads[1] = look_up(grid, index[1]);
      }
    } else if constexpr (Format::grid_neighbours == 8) {
      look_up(grid, low + g * ggml::panel_rows, quads);
    } else {
      quads[0] = look_up(grid, low + 2 * g * ggml::panel_rows);
      quads[1] = look_up(grid, low + (2 * g + 1) * ggml::panel_rows);
    }
  }

  // The i-th index of each row.
  static LATHE_INLINE void put_indices(const uint8_t* at, int i, int vector, uint16_t (&index)[lanes]) {
#pragma GCC unroll 2
    for (int r = 0; r < lanes; r += rows_at_once) {
      const int row = vector * lanes + r;
      const __m128i low = halves_of_bytes(at + Format::indices + i * ggml::panel_rows + row);
      const __m128i moved = _mm_and_si128(moved_high(at, i, row), _mm_set1_epi16(Format::grid_entries - 256));
      const __m128i both = _mm_or_si128(low, moved);
      __builtin_memcpy(index + r, &both, 2 * rows_at_once);
    }
    asm("" : "+m"(index));
  }
  // What indices have beyond eight bits, at bit 8.
  static LATHE_INLINE __m128i moved_high(const uint8_t* at, int i, int row) {
    constexpr int each = std::is_same_v<Format, ggml::IQ2_XS> || std::is_same_v<Format, ggml::IQ3_S> ? 1
                         : std::is_same_v<Format, ggml::IQ2_S>                                       ? 2
                         : std::is_same_v<Format, ggml::IQ1_S>                                       ? 3
                                                                                                     : 4;
    const int from = each * i;
    const __m128i high = ggml::HasDeltas<Format> ? load_eight_halves(at + Format::high + 2 * row)
                                                 : halves_of_bytes(at + Format::high + row);
    return from > 8 ? _mm_srli_epi16(high, from - 8) : _mm_slli_epi16(high, 8 - from);
  }

  static LATHE_INLINE VecU code_of_scale(const uint8_t* unit, const uint8_t* at, int64_t b, int half, int vector) {
    const auto of_unit = static_cast<int>(b % (Format::elements / ggml::block));
    if constexpr (std::is_same_v<Format, ggml::IQ2_XS>) {
      return half == 0 ? bits_of_last_signs(sign_words(at, vector))
                       : load_bytes(at + Format::high + vector * lanes) >> 4;
    } else if constexpr (std::is_same_v<Format, ggml::IQ2_S>) {
      return load_bytes(at + vector * lanes) >> (4 * half) & 15u;
    } else if constexpr (std::is_same_v<Format, ggml::IQ3_S>) {
      const uint8_t* const both = unit + ggml::f16_scales + of_unit / 2 * ggml::byte_scales + vector * lanes;
      return load_bytes(both) >> (4 * (of_unit % 2)) & 15u;
    } else if constexpr (std::is_same_v<Format, ggml::IQ1_S>) {
      return load_pairs_of_bytes(at + Format::high + 2 * vector * lanes) >> 12 & 7u;
    } else if constexpr (std::is_same_v<Format, ggml::IQ1_M>) {
      const uint8_t* const four = unit + ggml::f16_scales + 2 * (of_unit / 2 * ggml::panel_rows + vector * lanes);
      return load_pairs_of_bytes(four) >> (6 * (of_unit % 2) + 3 * half) & 7u;
    } else {
      return bits_of_last_signs(sign_words(at, vector));
    }
  }
};

template <>
struct Decoder<ggml::IQ2_XXS> : GridDecoder<ggml::IQ2_XXS> {};
template <>
struct Decoder<ggml::IQ2_XS> : GridDecoder<ggml::IQ2_XS> {};
template <>
struct Decoder<ggml::IQ2_S> : GridDecoder<ggml::IQ2_S> {};
template <>
struct Decoder<ggml::IQ3_XXS> : GridDecoder<ggml::IQ3_XXS> {};
template <>
struct Decoder<ggml::IQ3_S> : GridDecoder<ggml::IQ3_S> {};
template <>
struct Decoder<ggml::IQ1_S> : GridDecoder<ggml::IQ1_S> {};
template <>
struct Decoder<ggml::IQ1_M> : GridDecoder<ggml::IQ1_M> {};

// Whether a decoder has eight().
template <class Decoder>
concept DecodesEights = requires(VecU (&quads)[2]) {
  Decoder::eight(nullptr, 0, 0, 0, quads);
};

}  // namespace lathe::kernels::LATHE_ISA
