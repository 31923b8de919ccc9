// Codes of QuantizedWeight's panels into words of a panel, for 16 rows and two neighbours along k at a time. For this folder's
// cpu*.cpp only. The layouts are in gemm.h. Pairs of bf16 from nf4 come from tables instead where the CPU multiplies them
// (tables.h).
#pragma once

#include "kernels/matmul/cpu/gemm.h"
#include "kernels/nf4/cpu_codebook.h"
#include "kernels/simd/bytes.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr int block_rows = 16;
inline constexpr int block_vectors = block_rows / lanes;
inline constexpr int runs = 4;  // of a square of 32 neighbours along k
inline constexpr int pairs_of_run = 4;

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
  LATHE_INLINE explicit BlockScales(const float* scales) {
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
  LATHE_INLINE explicit BlockScales(const float* scales) {
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

// Square: the codes of 16 rows and 32 neighbours along k. `codes` are a group's, `square` counts from its beginning.
struct Nf4Codes {
  static constexpr bool asks_early = true;  // runs of 64 bytes, four at a time: the hardware's prefetcher is late
  Nf4Table table = nf4_table();

  struct Square {
    VecU words[runs][block_vectors];  // of a row each
  };
  static LATHE_INLINE Square load_square(const uint8_t* codes, int64_t group, int64_t square, int64_t block) {
    const int64_t four_bytes = gemm::nf4_four_bytes(group);
    Square result;
#pragma GCC unroll 4
    for (int j = 0; j < block_vectors; ++j) {
      Vec v[4];
#pragma GCC unroll 4
      for (int four = 0; four < 4; ++four)
        v[four] = (Vec)load_words(codes + (block * 4 + four) * four_bytes + square * 64 + j * lanes * 4);
      transpose_squares(v);
#pragma GCC unroll 4
      for (int run = 0; run < runs; ++run) result.words[run][j] = (VecU)v[run];
    }
    return result;
  }

  template <gemm::Element element>
  static LATHE_INLINE void decode(const Nf4Codes& self, const Square& square, int run, int pair,
                           const BlockScales<element>& scales, BlockWords<element>& words) {
#pragma GCC unroll 4
    for (int j = 0; j < block_vectors; ++j) {
      const VecU codes = square.words[run][j];
      put(words, j, look_up(self.table, codes >> 4 * pair) * scales.rows[j],
          look_up(self.table, codes >> (4 * pair + 16)) * scales.rows[j]);
    }
  }
};

// A byte's value as int8, exact: as the mantissa's bits of one in 2^23 or, from a word's upper byte, in 2^15, off by as much and 128. Where
// shifting kept the ports of shifts busy, this takes logic, which has any port, and a subtraction.
LATHE_INLINE Vec lower_byte(VecU word) { return (Vec)((word & 0xffu) ^ 0x4b000080u) - splat(0x1p23f + 128); }
LATHE_INLINE Vec upper_byte(VecU word) { return (Vec)((word & 0xff00u) ^ 0x47008000u) - splat(0x1p15f + 128); }

struct Int8Codes {
  // One stream, which the hardware's prefetcher follows: with requests besides it took a fifth to a half longer.
  static constexpr bool asks_early = false;
  struct Square {
    const uint8_t* pairs;
  };
  static LATHE_INLINE Square load_square(const uint8_t* codes, int64_t, int64_t square, int64_t block) {
    return {codes + square * gemm::decoded_k * gemm::panel_width + block * block_rows * 2};
  }

  template <gemm::Element element>
  static LATHE_INLINE void decode(const Int8Codes&, const Square& square, int run, int pair,
                           const BlockScales<element>& scales, BlockWords<element>& words) {
    const uint8_t* codes = square.pairs + (run * pairs_of_run + pair) * 2 * gemm::panel_width;
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
        const VecU pairs = load_pairs_of_bytes(codes + 2 * j * lanes);
        put(words, j, lower_byte(pairs) * scales.rows[j], upper_byte(pairs) * scales.rows[j]);
      }
    }
  }
};

}  // namespace lathe::kernels::LATHE_ISA
