// Words of a panel's planes (ggml_formats.h), and a row's scales. For repack*.cpp only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "kernels/matmul/weights/ggml/ggml_formats.h"

namespace lathe::kernels::ggml {

inline uint32_t word_at(const std::byte* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}
inline uint8_t* word_of(uint8_t* plane, int64_t word, int64_t lane) { return plane + word * bits_plane + lane * 4; }
inline const uint8_t* word_of(const uint8_t* plane, int64_t word, int64_t lane) {
  return plane + word * bits_plane + lane * 4;
}
inline void put_word(uint8_t* plane, int64_t word, int64_t lane, uint32_t value) {
  std::memcpy(word_of(plane, word, lane), &value, 4);
}
inline uint32_t get_word(const uint8_t* plane, int64_t word, int64_t lane) {
  uint32_t value;
  std::memcpy(&value, word_of(plane, word, lane), 4);
  return value;
}

inline void put_f16(uint8_t* scales, int64_t lane, const std::byte* p) { std::memcpy(scales + lane * 2, p, 2); }
inline float get_f16(const uint8_t* scales, int64_t lane) {
  f16 value;
  std::memcpy(&value.bits, scales + lane * 2, 2);
  return static_cast<float>(value);
}

// Bit k of `bits` is neighbour k's: bits 4t … 4t + 3 go to bit t of the bytes, two times four at once.
inline uint32_t spread_bits(uint32_t bits) {
  const uint64_t halves = bits | static_cast<uint64_t>(bits >> 16) << 32;
  uint64_t words = 0;
  for (int t = 0; t < 4; ++t) {
    const uint64_t four = (halves >> (4 * t)) & 0x0000000f0000000fu;
    words |= ((four * 0x00204081u) & 0x0101010101010101u) << t;
  }
  return static_cast<uint32_t>(words | words >> 28);
}
inline void put_bits(uint8_t* plane, int64_t lane, uint32_t bits) { put_word(plane, 0, lane, spread_bits(bits)); }

}  // namespace lathe::kernels::ggml
