#include "kernels/quantization/dynamic_map.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lathe::kernels {
namespace {

// linspace(0.1, 1, count)[i].
float boundary(int i, int count) {
  const float step = (1.0f - 0.1f) / static_cast<float>(count - 1);
  return i < count / 2 ? std::fma(step, static_cast<float>(i), 0.1f)
                       : std::fma(-step, static_cast<float>(count - 1 - i), 1.0f);
}

bool goes_down(float x, float below, float above) { return std::abs(x - below) <= std::abs(x - above); }

// The last x between two neighbouring values that goes to the lower: near their midpoint, and found from there step by
// step.
float threshold(float below, float above) {
  const float infinity = std::numeric_limits<float>::infinity();
  float x = static_cast<float>((static_cast<double>(below) + static_cast<double>(above)) / 2);
  while (!goes_down(x, below, above)) x = std::nextafter(x, -infinity);
  for (float next = std::nextafter(x, infinity); goes_down(next, below, above); next = std::nextafter(next, infinity))
    x = next;
  return x;
}

uint8_t search(const DynamicMap& map, float x) {
  return static_cast<uint8_t>(std::lower_bound(map.thresholds.begin(), map.thresholds.end(), x) -
                              map.thresholds.begin());
}

DynamicMap make(bool with_sign) {
  constexpr float powers[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  DynamicMap map{.values = {0.0f, 1.0f}, .thresholds = {}, .first_code = {}};
  float* next = map.values.data() + 2;
  for (int i = 0; i < 7; ++i) {
    const int count = (with_sign ? 1 : 2) * (1 << i) + 1;
    for (int j = 0; j + 1 < count; ++j) {
      const float value = powers[i] * ((boundary(j, count) + boundary(j + 1, count)) / 2.0f);
      *next++ = value;
      if (with_sign) *next++ = -value;
    }
  }
  std::sort(map.values.begin(), map.values.end());
  for (size_t c = 0; c < 255; ++c) map.thresholds[c] = threshold(map.values[c], map.values[c + 1]);
  map.thresholds[255] = std::numeric_limits<float>::infinity();
  for (int bucket = 0; bucket < DynamicMap::buckets; ++bucket) {
    const uint32_t first = bucket == 0 ? 0 : 0x33800000u + (static_cast<uint32_t>(bucket - 1) << 16);
    const uint32_t last = bucket == 0 ? 0x337fffffu : first + 0xffffu;
    map.first_code[0][bucket] = search(map, std::bit_cast<float>(first));
    map.first_code[1][bucket] = search(map, -std::bit_cast<float>(last));
  }
  return map;
}

}  // namespace

const DynamicMap& signed_dynamic_map() {
  static const DynamicMap map = make(true);
  return map;
}

const DynamicMap& unsigned_dynamic_map() {
  static const DynamicMap map = make(false);
  return map;
}

}  // namespace lathe::kernels
