// A block's codes, or those of the half that a scale is of, times the integers of a tile's rows: exact sums, in
// whatever order a set multiplies best. For this folder's sources only.
//
//   words  of a row's block of activations (Integers)
//   add    products[row][vector] += the sums over half `half` of block `b`; `block`: the words of the tile's rows
#pragma once

#include "kernels/matmul/weights/ggml/cpu/decoders.h"
#include "kernels/matmul/weights/ggml/cpu/grid_decoders.h"

namespace lathe::kernels::LATHE_ISA {

LATHE_INLINE VecU splat_word(const uint32_t* word) { return *word - VecU{}; }

// sum + the products of two neighbours. GCC reassociates whole numbers: it made a tree of a block's 16 sums whose
// leaves, 128 products, went through the stack (4 rows with AVX2 took 1.8 times as long, many rows twice). A sum that
// passes through an empty asm stays a chain in its register.
LATHE_INLINE VecI add_products(VecI sum, VecU weights, VecU activations) {
#if defined(LATHE_ISA_avx512_bf16)
  return (VecI)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)weights, (__m512i)activations);
#elif defined(LATHE_AVX512)
  sum += (VecI)_mm512_madd_epi16((__m512i)weights, (__m512i)activations);
  asm("" : "+v"(sum));
  return sum;
#elif defined(LATHE_AVX2)
  sum += (VecI)_mm256_madd_epi16((__m256i)weights, (__m256i)activations);
  asm("" : "+x"(sum));
  return sum;
#else
  sum += (VecI)_mm_madd_epi16((__m128i)weights, (__m128i)activations);
  asm("" : "+x"(sum));
  return sum;
#endif
}

// The order in which a block's pairs are taken: the four that share a word of nibbles together, and the first 16
// neighbours before the others where each has a scale.
template <class Decoder>
LATHE_INLINE constexpr int pair_at(int half, int n) {
  return Decoder::scales == 2 ? half * 8 + n : n / 4 * 2 + n % 2 + n % 4 / 2 * 8;
}

// Calls body(pair, weights) for the pairs of block `b`, or of its half where that has a scale; weights[v]: of vector v.
template <class Decoder, class Body>
LATHE_INLINE void for_each_pair(const uint8_t* panel, int64_t b, int half, const Body& body) {
  VecU weights[ggml_vectors];
  if constexpr (DecodesEights<Decoder>) {
#pragma GCC unroll 4
    for (int n = 0; n < 4 / Decoder::scales; ++n) {
      const int g = half * 2 + n;
      VecU quads[ggml_vectors][2];
#pragma GCC unroll 4
      for (int v = 0; v < ggml_vectors; ++v) Decoder::eight(panel, b, g, v, quads[v]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < ggml_vectors; ++v) weights[v] = pair_of_quad(quads[v][i / 2], i);
        body(g * 4 + i, weights);
      }
    }
  } else {
#pragma GCC unroll 16
    for (int n = 0; n < 16 / Decoder::scales; ++n) {
      const int pair = pair_at<Decoder>(half, n);
#pragma GCC unroll 4
      for (int v = 0; v < ggml_vectors; ++v) weights[v] = Decoder::pair(panel, b, pair, v);
      body(pair, weights);
    }
  }
}

// Of Integers::pairs.
struct PairSums {
  static constexpr int words = 16;

  template <class Decoder, int rows>
  static LATHE_INLINE void add(const uint8_t* panel, int64_t b, int half, const uint32_t* block,
                               VecI (&products)[rows][ggml_vectors]) {
    const auto add_pair = [&](int pair, const VecU(&weights)[ggml_vectors]) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const VecU activations = splat_word(block + i * words + pair);
#pragma GCC unroll 4
        for (int v = 0; v < ggml_vectors; ++v) products[i][v] = add_products(products[i][v], weights[v], activations);
      }
    };
    for_each_pair<Decoder>(panel, b, half, add_pair);
  }
};

#if defined(LATHE_ISA_avx512_bf16)
// Of Integers::bytes. vpdpbusd multiplies bytes without a sign by such with one: codes are the former for the high
// bytes of activations, which are signed, and the latter for the low ones. As many products as of pairs, but codes
// stay in the bytes that their planes have: one row is 1.5 times as fast out of the second-level cache, and 1.25 times
// out of the third.
struct ByteSums {
  static constexpr int words = 17;

  static LATHE_INLINE VecI add_products(VecI sum, VecU unsigned_bytes, VecU signed_bytes) {
    return (VecI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)unsigned_bytes, (__m512i)signed_bytes);
  }

  template <class Decoder, int rows>
  static LATHE_INLINE void add(const uint8_t* panel, int64_t b, int half, const uint32_t* block,
                               VecI (&products)[rows][ggml_vectors]) {
    static_assert(ggml_vectors == 1);
    VecI high[rows] = {}, low[rows] = {};
    const auto add_quad = [&](int quad, VecU codes) __attribute__((always_inline)) {
      const VecU positive = Decoder::signed_codes ? codes ^ 0x80808080u : codes;  // 128 more
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const uint32_t* const row = block + i * words;
        high[i] = add_products(high[i], positive, splat_word(row + quad));
        low[i] = add_products(low[i], splat_word(row + 8 + quad), codes);
      }
    };
    if constexpr (DecodesEights<Decoder>) {
#pragma GCC unroll 4
      for (int n = 0; n < 4 / Decoder::scales; ++n) {
        const int g = half * 2 + n;
        VecU quads[2];
        Decoder::eight(panel, b, g, 0, quads);
        add_quad(2 * g, quads[0]);
        add_quad(2 * g + 1, quads[1]);
      }
    } else {
#pragma GCC unroll 8
      for (int n = 0; n < 8 / Decoder::scales; ++n) {
        // Two that share a word of nibbles together, where a scale is not for 16 neighbours.
        const int quad = Decoder::scales == 2 ? half * 4 + n : n % 2 * 4 + n / 2;
        add_quad(quad, Decoder::quad(panel, b, quad, 0));
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      if constexpr (Decoder::signed_codes) high[i] -= (VecI)splat_word(block + i * words + 16);
      products[i][0] += (high[i] << 8) + low[i];
    }
  }
};
using DirectSums = ByteSums;
#else
using DirectSums = PairSums;
#endif

}  // namespace lathe::kernels::LATHE_ISA
