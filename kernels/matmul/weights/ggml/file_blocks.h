// What the blocks of a GGUF file hold, for those who put it into another order.
#pragma once

#include <cstddef>
#include <cstdint>

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

}  // namespace lathe::kernels::ggml
