// The dynamic 8-bit data type (Dettmers 2016): 256 values with a shared exponent in unary and a fraction that shrinks as it grows.
//
// For i = 0 … 6 the midpoints of linspace(0.1, 1, n) × 10^(i − 6), with n = 2^i + 1 in the signed map, which holds them with both
// signs, and n = 2^(i + 1) + 1 in the unsigned one; 0 and 1 beside them. The bits are those of bitsandbytes'
// create_dynamic_map on PyTorch for x86-64, whose linspace counts in f32 from the nearer end with a fused multiply-add.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace lathe::kernels {

struct DynamicMap {
  std::array<float, 256> values;  // ascending; code c stands for values[c]
  // Code c is the nearest for thresholds[c − 1] < x ≤ thresholds[c] (of two equally near the lower): |x − value| compared as
  // f32 differences, which grow with x, so that each pair of neighbours has one last x that goes down. The last is +∞.
  std::array<float, 256> thresholds;
};

const DynamicMap& signed_dynamic_map();    // −0.993 … 1; code 127 is 0
const DynamicMap& unsigned_dynamic_map();  // 0 … 1; code 0 is 0

// The code nearest to x: how many thresholds lie below it. NaN gives 0.
inline uint8_t nearest_code(const DynamicMap& map, float x) {
  int code = 0;
  for (int step = 128; step > 0; step /= 2) code += x > map.thresholds[static_cast<size_t>(code + step - 1)] ? step : 0;
  return static_cast<uint8_t>(code);
}

}  // namespace lathe::kernels
