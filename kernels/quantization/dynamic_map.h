// The dynamic 8-bit data type (Dettmers 2016): 256 values with a shared exponent in unary and a fraction that shrinks
// as it grows.
//
// For i = 0 … 6 the midpoints of linspace(0.1, 1, n) × 10^(i − 6), with n = 2^i + 1 in the signed map, which holds them
// with both signs, and n = 2^(i + 1) + 1 in the unsigned one; 0 and 1 beside them. The bits are those of bitsandbytes'
// create_dynamic_map on PyTorch for x86-64, whose linspace counts in f32 from the nearer end with a fused multiply-add.
#pragma once

#include <array>
#include <cstdint>

namespace lathe::kernels {

struct DynamicMap {
  std::array<float, 256> values;  // ascending; code c stands for values[c]
  // Code c is the nearest for thresholds[c − 1] < x ≤ thresholds[c]; of two that are equally near, the lower. Distances
  // |x − value| are compared as f32: between two neighbours one last x goes to the lower. The last threshold is +∞.
  std::array<float, 256> thresholds;
  // By sign and magnitude of x, in buckets of 2^-7 of a power of two from 2^-24 to 1, with what is smaller and what is
  // larger at the ends: the code of a bucket's lowest x. A bucket holds one threshold at most.
  static constexpr int buckets = 24 * 128 + 2;
  uint8_t first_code[2][buckets];
};

const DynamicMap& signed_dynamic_map();    // −0.993 … 1; code 127 is 0
const DynamicMap& unsigned_dynamic_map();  // 0 … 1; code 0 is 0

// Where x lies in first_code[x < 0].
static inline __attribute__((always_inline)) int dynamic_bucket(float x) {
  constexpr uint32_t below = (0x33800000u >> 16) - 1;  // the last bucket below 2^-24
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const uint32_t bucket = (bits & 0x7fffffffu) >> 16;
  return bucket <= below                        ? 0
         : bucket - below < DynamicMap::buckets ? static_cast<int>(bucket - below)
                                                : DynamicMap::buckets - 1;
}

// The code nearest to x in [−1, 1] (a larger |x| gives some code), from thresholds and first_code of a map.
static inline __attribute__((always_inline)) uint8_t nearest_code(const float* thresholds,
                                                                  const uint8_t (*first_code)[DynamicMap::buckets],
                                                                  float x) {
  const uint8_t code = first_code[x < 0][dynamic_bucket(x)];
  return static_cast<uint8_t>(code + (x > thresholds[code]));
}
inline uint8_t nearest_code(const DynamicMap& map, float x) {
  return nearest_code(map.thresholds.data(), map.first_code, x);
}

}  // namespace lathe::kernels
