// Codes of QuantizedWeight's panels into words of a panel, for 16 rows and two neighbours along k at a time. For this folder's
// cpu*.cpp only. The layouts are in gemm.h.
//
// One row of bf16 is bound by these instructions, not by memory: 32 weights take eight of 512 bits, of which Zen 4 starts two in a
// cycle, and as long from the first-level cache as from memory. Leaving out any one takes an eighth off. Codes row by row, whose pairs
// a permutation put together after vcvtne2ps_pbh, took 1.27 times as long.
#pragma once

#include "kernels/matmul/gemm.h"
#include "kernels/nf4/cpu_codebook.h"
#include "kernels/simd/bytes.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr int block_rows = 16;
inline constexpr int block_vectors = block_rows / lanes;

// The words of one unit (bf16: a pair of neighbours) or of two (f32).
template <gemm::Element element>
struct BlockWords {
  static constexpr int count = element == gemm::Element::bf16 ? 1 : 2;
  VecU units[count][block_vectors];
};

// Scales of 16 rows, in the order in which their values are made.
template <gemm::Element element>
struct BlockScales {
  Vec rows[block_vectors];
  BlockScales() = default;
  LATHE_ALWAYS_INLINE explicit BlockScales(const float* scales) {
#pragma GCC unroll 4
    for (int j = 0; j < block_vectors; ++j) rows[j] = load(scales + j * lanes);
  }
};

#if defined(LATHE_ISA_avx512_bf16)
template <>
struct BlockScales<
    gemm::Element::bf16> {  // vcvtne2ps_pbh puts two vectors one after the other: neighbours must be neighbours
  Vec low, high;            // of rows 0, 0, 1, 1, …, and of rows 8, 8, 9, 9, …
  BlockScales() = default;
  LATHE_ALWAYS_INLINE explicit BlockScales(const float* scales) {
    const VecU v = load_words(scales);
    low = (Vec)__builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    high = (Vec)__builtin_shufflevector(v, v, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
  }
};
#endif

// f32 to bf16 in the upper half of each word, to nearest even; weights are finite.
LATHE_INLINE VecU rounded_words(Vec v) { return (VecU)v + 0x7fffu + (((VecU)v >> 16) & 1u); }
LATHE_INLINE VecU pair_of(Vec first, Vec second) {
  return (rounded_words(first) >> 16) | (rounded_words(second) & 0xffff0000u);
}

// Values of rows × neighbours into words.
template <gemm::Element element>
LATHE_INLINE void put(BlockWords<element>& words, int vector, Vec first, Vec second) {
  if constexpr (element == gemm::Element::bf16) {
    words.units[0][vector] = pair_of(first, second);
  } else {
    words.units[0][vector] = (VecU)first, words.units[1][vector] = (VecU)second;
  }
}

struct Nf4Codes {
  static constexpr int block_bytes = 16;
  Nf4Table table = nf4_table();

  template <gemm::Element element>
  LATHE_INLINE void decode(const Nf4Codes& self, const uint8_t* codes, const BlockScales<element>& scales,
                           BlockWords<element>& words) {
#if defined(LATHE_ISA_avx512_bf16)
    if constexpr (element == gemm::Element::bf16) {
      const VecU bytes = load_bytes(codes);
      const Vec low = look_up(self.table, bytes) * scales.low, high = look_up(self.table, bytes >> 4) * scales.high;
      words.units[0][0] = (VecU)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
      return;
    } else
#endif
    {
#if defined(LATHE_AVX512)
      // 16-bit pieces of rows j and j + 8, once for either half of the vector.
      const __m512i four_times = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
      const __m512i order =
          _mm512_set_epi64((long long)0x80800f0e80800d0c, (long long)0x80800b0a80800908, (long long)0x8080070680800504,
                           (long long)0x8080030280800100, (long long)0x80800f0e80800d0c, (long long)0x80800b0a80800908,
                           (long long)0x8080070680800504, (long long)0x8080030280800100);
      const __m512i pieces = _mm512_shuffle_epi8(four_times, order);
      const __m512i to_first = _mm512_set_epi32(4, 4, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0);
      const VecU first = (VecU)_mm512_srlv_epi32(pieces, to_first);
      put(words, 0, look_up(self.table, first) * scales.rows[0], look_up(self.table, first >> 8) * scales.rows[0]);
#else
      constexpr int half = block_vectors / 2;
#pragma GCC unroll 2
      for (int j = 0; j < half; ++j) {
        VecU pieces = load_pairs_of_bytes(codes + 2 * j * lanes);  // of rows j·lanes … and of those 8 further
        put(words, j, look_up(self.table, pieces) * scales.rows[j], look_up(self.table, pieces >> 8) * scales.rows[j]);
        pieces = pieces >> 4;
        put(words, j + half, look_up(self.table, pieces) * scales.rows[j + half],
            look_up(self.table, pieces >> 8) * scales.rows[j + half]);
      }
#endif
    }
  }
};

struct Int8Codes {
  static constexpr int block_bytes = 32;

  template <gemm::Element element>
  LATHE_INLINE void decode(const Int8Codes&, const uint8_t* codes, const BlockScales<element>& scales,
                           BlockWords<element>& words) {
#if defined(LATHE_ISA_avx512_bf16)
    if constexpr (element == gemm::Element::bf16) {
      const int8_t* at = reinterpret_cast<const int8_t*>(codes);
      const Vec low = __builtin_convertvector(load_signed_bytes(at), Vec) * scales.low;
      const Vec high = __builtin_convertvector(load_signed_bytes(at + lanes), Vec) * scales.high;
      words.units[0][0] = (VecU)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
      return;
    } else
#endif
    {
#pragma GCC unroll 4
      for (int j = 0; j < block_vectors; ++j) {
        const VecI pieces = (VecI)(load_pairs_of_bytes(codes + 2 * j * lanes) << 16);
        const Vec first = __builtin_convertvector((pieces << 8) >> 24, Vec),
                  second = __builtin_convertvector(pieces >> 24, Vec);
        put(words, j, first * scales.rows[j], second * scales.rows[j]);
      }
    }
  }
};

}  // namespace lathe::kernels::LATHE_ISA
