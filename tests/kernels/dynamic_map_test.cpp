// The dynamic 8-bit maps: bitsandbytes' bits, and codes against a search through all 256 values.
#include "kernels/quantization/dynamic_map.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "tests/support/golden.h"

namespace lathe::kernels {
namespace {

TEST(DynamicMap, HoldsTheBitsOfBitsandbytes) {
  auto golden = lathe::testing::golden_tensors("kernels/dynamic_map.safetensors");
  for (const auto& [name, map] : {std::pair{"signed", &signed_dynamic_map()}, {"unsigned", &unsigned_dynamic_map()}}) {
    const auto expected = golden[name].span<float>();
    ASSERT_EQ(expected.size(), 256u);
    for (size_t c = 0; c < 256; ++c)
      EXPECT_EQ(std::bit_cast<uint32_t>(map->values[c]), std::bit_cast<uint32_t>(expected[c])) << name << " " << c;
  }
}

TEST(DynamicMap, CodesAreTheNearestOfAllValuesAndTheLowerOfTwo) {
  for (const DynamicMap* map : {&signed_dynamic_map(), &unsigned_dynamic_map()}) {
    std::vector<float> inputs = {0.0f, -0.0f, 1e-30f, 2e-7f, 0x1p-24f, 1e-40f};
    for (size_t c = 0; c < 255; ++c) {
      const float at = map->thresholds[c];
      for (const float x : {map->values[c], at, std::nextafter(at, -2.0f), std::nextafter(at, 2.0f)})
        inputs.push_back(x);
    }
    for (uint32_t bits = 0x33800000u; bits <= 0x3f800000u; bits += 0x10000u)  // where buckets begin
      for (const uint32_t edge : {bits - 1, bits}) inputs.push_back(std::bit_cast<float>(edge));
    const size_t count = inputs.size();
    for (size_t i = 0; i < count; ++i) inputs.push_back(-inputs[i]);
    for (const float x : inputs) {
      size_t nearest = 0;
      for (size_t c = 1; c < 256; ++c)
        if (std::abs(x - map->values[c]) < std::abs(x - map->values[nearest])) nearest = c;
      ASSERT_EQ(nearest_code(*map, x), nearest) << x;
    }
  }
  EXPECT_EQ(nearest_code(signed_dynamic_map(), 0.0f), 127);
  EXPECT_EQ(nearest_code(unsigned_dynamic_map(), 0.0f), 0);
}

}  // namespace
}  // namespace lathe::kernels
