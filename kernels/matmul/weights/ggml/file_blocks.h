// What the blocks of a GGUF file hold, for those who put it into another order.
#pragma once

#include <cstddef>
#include <cstdint>
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

// Where a block of 256 has its f16 factors, d (and dmin).
template <class Format>
constexpr int64_t factors_at() {
  if constexpr (std::is_same_v<Format, Q6_K>) return 208;
  if constexpr (std::is_same_v<Format, Q3_K>) return 108;
  if constexpr (std::is_same_v<Format, Q2_K>) return 80;
  return 0;
}

}  // namespace lathe::kernels::ggml
