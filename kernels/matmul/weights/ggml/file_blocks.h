// What the blocks of a GGUF file hold, for those who put it into another order.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/matmul/weights/ggml/ggml_formats.h"

namespace lathe::kernels::ggml {

// Of 32 neighbours, from the eight 6-bit scales and minima that Q4_K and Q5_K pack into 12 bytes.
struct KScale {
  uint8_t scale, minimum;
};
inline KScale k_scale(const std::byte* packed, int64_t j) {
  const auto at = [&](int64_t i) { return static_cast<unsigned>(packed[i]); };
  const unsigned scale = j < 4 ? at(j) & 63u : (at(j + 4) & 15u) | at(j - 4) >> 6 << 4;
  const unsigned minimum = j < 4 ? at(j + 4) & 63u : at(j + 4) >> 4 | at(j) >> 6 << 4;
  return {static_cast<uint8_t>(scale), static_cast<uint8_t>(minimum)};
}

// Scale s of 16 neighbours of a Q3_K block, of which it packs sixteen of 6 bits into 12 bytes: four low bits in nibbles
// of the first 8 bytes, two high ones in the last 4; 32 stands for 0.
inline int8_t q3_k_scale(const std::byte* block, int64_t s) {
  const auto at = [&](int64_t i) { return static_cast<unsigned>(block[96 + i]); };
  const unsigned low = s < 8 ? at(s) & 15u : at(s - 8) >> 4, high = at(8 + s % 4) >> (2 * (s / 4)) & 3u;
  return static_cast<int8_t>(static_cast<int>(low | high << 4) - 32);
}

// Scale j of 32 neighbours of an IQ4_XS block, of 6 bits: two high ones in bytes 2 and 3, four low ones in nibbles
// behind them; 32 stands for 0.
inline int8_t iq4_xs_scale(const std::byte* block, int64_t j) {
  const auto at = [&](int64_t i) { return static_cast<unsigned>(block[i]); };
  const unsigned high = at(2 + j / 4) >> (2 * (j % 4)) & 3u, low = at(4 + j / 2) >> (4 * (j % 2)) & 15u;
  return static_cast<int8_t>(static_cast<int>(low | high << 4) - 32);
}

// What 32 neighbours of a block in indices of a grid have.
struct GridBlock {
  uint16_t indices[8];  // of every 4 or, half as many, 8 neighbours
  uint32_t signs;       // bit k: neighbour k's; of IQ1: 1 is subtracted from it, not added
  uint8_t scales[2];    // of 16 each
};

// Signs of 7 neighbours each, four times: the eighth makes the number of ones even.
inline uint32_t signs_of_sevens(uint32_t sevens) {
  uint32_t signs = 0;
  for (int g = 0; g < 4; ++g) {
    const uint32_t seven = sevens >> (7 * g) & 127u;
    signs |= (seven | (std::popcount(seven) & 1u) << 7) << (8 * g);
  }
  return signs;
}

// The j-th 32 of a block.
template <class Format>
GridBlock grid_block(const std::byte* block, int64_t j) {
  const auto at = [&](int64_t i) { return static_cast<uint32_t>(block[i]); };
  const auto word = [&](int64_t i) { return at(i) | at(i + 1) << 8 | at(i + 2) << 16 | at(i + 3) << 24; };
  GridBlock found{};
  const auto put_index = [&](int64_t i, uint32_t index) { found.indices[i] = static_cast<uint16_t>(index); };
  const auto put_scales = [&](uint32_t first, uint32_t last) {
    found.scales[0] = static_cast<uint8_t>(first), found.scales[1] = static_cast<uint8_t>(last);
  };
  const auto put_nibbles = [&](uint32_t both) { put_scales(both & 15u, both >> 4); };
  if constexpr (std::is_same_v<Format, IQ2_XXS>) {  // f16 d; of 32: indices[4], signs of sevens and a scale
    for (int64_t g = 0; g < 4; ++g) put_index(g, at(2 + 8 * j + g));
    found.signs = signs_of_sevens(word(6 + 8 * j));
    put_scales(at(9 + 8 * j) >> 4, at(9 + 8 * j) >> 4);
  } else if constexpr (std::is_same_v<Format, IQ2_XS>) {  // f16 d; u16[32]: 9 bits, signs of seven; scales[8]
    uint32_t sevens = 0;
    for (int64_t g = 0; g < 4; ++g) {
      const uint32_t both = at(2 + 8 * j + 2 * g) | at(3 + 8 * j + 2 * g) << 8;
      put_index(g, both & 511u);
      sevens |= both >> 9 << (7 * g);
    }
    found.signs = signs_of_sevens(sevens);
    put_nibbles(at(66 + j));
  } else if constexpr (std::is_same_v<Format, IQ2_S>) {  // f16 d; indices[32]; signs[32]; high[8]; scales[8]
    for (int64_t g = 0; g < 4; ++g) put_index(g, at(2 + 4 * j + g) | (at(66 + j) >> (2 * g) & 3u) << 8);
    found.signs = word(34 + 4 * j);
    put_nibbles(at(74 + j));
  } else if constexpr (std::is_same_v<Format, IQ3_XXS>) {  // f16 d; indices[64]; of 32: signs of sevens and a scale
    for (int64_t t = 0; t < 8; ++t) put_index(t, at(2 + 8 * j + t));
    found.signs = signs_of_sevens(word(66 + 4 * j));
    put_scales(at(69 + 4 * j) >> 4, at(69 + 4 * j) >> 4);
  } else if constexpr (std::is_same_v<Format, IQ3_S>) {  // f16 d; indices[64]; high[8]; signs[32]; scales[4]
    for (int64_t t = 0; t < 8; ++t) put_index(t, at(2 + 8 * j + t) | (at(66 + j) >> t & 1u) << 8);
    found.signs = word(74 + 4 * j);
    const uint32_t scale = at(106 + j / 2) >> (4 * (j % 2)) & 15u;
    put_scales(scale, scale);
  } else if constexpr (std::is_same_v<Format, IQ1_S>) {  // f16 d; indices[32]; u16[8]: 4 · 3 bits, a scale, a sign
    const uint32_t high = at(34 + 2 * j) | at(35 + 2 * j) << 8;
    for (int64_t g = 0; g < 4; ++g) put_index(g, at(2 + 4 * j + g) | (high >> (3 * g) & 7u) << 8);
    found.signs = high >> 15 != 0 ? ~0u : 0u;
    put_scales(high >> 12 & 7u, high >> 12 & 7u);
  } else {  // IQ1_M: indices[32]; high[16], of 8 neighbours 3 bits and a sign; u16[4]: 4 scales of 3 bits, 4 bits of d
    static_assert(std::is_same_v<Format, IQ1_M>);
    for (int64_t g = 0; g < 4; ++g) {
      const uint32_t high = at(32 + 2 * j + g / 2) >> (4 * (g % 2)) & 15u;
      put_index(g, at(4 * j + g) | (high & 7u) << 8);
      if (high >> 3 != 0) found.signs |= 0xffu << (8 * g);
    }
    const uint32_t scales = (at(48 + j / 2 * 2) | at(49 + j / 2 * 2) << 8) >> (6 * (j % 2));
    put_scales(scales & 7u, scales >> 3 & 7u);
  }
  return found;
}

// The bits of a block's f16 d.
template <class Format>
uint16_t grid_factor(const std::byte* block) {
  uint16_t bits = 0;
  if constexpr (std::is_same_v<Format, IQ1_M>) {
    for (int i = 0; i < 4; ++i)
      bits = static_cast<uint16_t>(bits | (static_cast<unsigned>(block[49 + 2 * i]) >> 4) << (4 * i));
  } else {
    std::memcpy(&bits, block, 2);
  }
  return bits;
}

// Where a block of 256 has its f16 factors, d (and dmin).
template <class Format>
constexpr int64_t factors_at() {
  if constexpr (std::is_same_v<Format, Q6_K>) return 208;
  if constexpr (std::is_same_v<Format, Q3_K>) return 108;
  if constexpr (std::is_same_v<Format, Q2_K>) return 80;
  return 0;
}

}  // namespace lathe::kernels::ggml
