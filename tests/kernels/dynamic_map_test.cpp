// The dynamic 8-bit maps: bitsandbytes' bits, and codes against a search through all 256 values.
#include "kernels/quantization/dynamic_map.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "core/random.h"
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
    std::vector<float> inputs = {0.0f, -0.0f, 1.0f, -1.0f, 1e-30f, -1e-30f, 2e-7f};
    for (size_t c = 0; c + 1 < 256; ++c) {
      const float at = map->thresholds[c];
      for (const float x : {map->values[c], at, std::nextafter(at, -2.0f), std::nextafter(at, 2.0f)})
        inputs.push_back(x);
    }
    RandomStream random(1, RandomPurpose::test);
    for (int i = 0; i < 2000; ++i)
      inputs.push_back((2 * random.uniform() - 1) * std::pow(10.0f, -7 * random.uniform()));
    for (const float x : inputs) {
      size_t nearest = 0;
      for (size_t c = 1; c < 256; ++c)
        if (std::abs(x - map->values[c]) < std::abs(x - map->values[nearest])) nearest = c;
      EXPECT_EQ(nearest_code(*map, x), nearest) << x;
    }
  }
  EXPECT_EQ(nearest_code(signed_dynamic_map(), 0.0f), 127);
  EXPECT_EQ(nearest_code(unsigned_dynamic_map(), 0.0f), 0);
}

}  // namespace
}  // namespace lathe::kernels
