#include "core/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/random.h"

namespace lathe {
namespace {

f16 f16_of(uint32_t bits) {
  f16 value;
  value.bits = static_cast<uint16_t>(bits);
  return value;
}

bf16 bf16_of(uint32_t bits) {
  bf16 value;
  value.bits = static_cast<uint16_t>(bits);
  return value;
}

// IEEE 754-2008, 3.4: the value of a binary16 pattern, in double, from its three fields.
double value_of_f16(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 0x1fu);
  const double fraction = static_cast<double>(bits & 0x3ffu) / 1024.0;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1.0 + fraction, exponent - 15);
  return bits & 0x8000u ? -magnitude : magnitude;
}

bool is_nan_pattern(uint32_t bits) { return (bits & 0x7fffu) > 0x7c00u; }

TEST(F16, EveryPatternWidensToItsValue) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float value = static_cast<float>(f16_of(bits));
    if (is_nan_pattern(bits)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
    } else if ((bits & 0x7fffu) == 0x7c00u) {
      ASSERT_EQ(value, bits & 0x8000u ? -INFINITY : INFINITY) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(value), value_of_f16(bits)) << bits;
      ASSERT_EQ(std::signbit(value), (bits & 0x8000u) != 0) << bits;
    }
  }
}

TEST(F16, EveryPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const f16 back(static_cast<float>(f16_of(bits)));
    if (is_nan_pattern(bits)) {
      ASSERT_TRUE(is_nan_pattern(back.bits)) << bits;
      ASSERT_EQ(back.bits & 0x8000u, bits & 0x8000u) << bits;
      ASSERT_TRUE(back.bits & 0x200u) << "a quiet NaN, from " << bits;
    } else {
      ASSERT_EQ(back.bits, bits);
    }
  }
}

// Between each pair of neighbours: below the middle goes down, above it goes up, the middle goes to the even one.
// 65504's upper neighbour is 65536, which binary16 writes as infinity.
TEST(F16, RoundsToNearestEvenBetweenAllNeighbours) {
  for (uint32_t lower = 0; lower < 0x7c00u; ++lower) {
    const double low = value_of_f16(lower);
    const double high = lower + 1 == 0x7c00u ? 65536.0 : value_of_f16(lower + 1);
    const float middle = static_cast<float>((low + high) / 2);  // 12 significant bits at most: exact
    const uint32_t even = lower % 2 == 0 ? lower : lower + 1;
    ASSERT_EQ(f16(middle).bits, even) << lower;
    ASSERT_EQ(f16(std::nextafter(middle, 0.0f)).bits, lower) << lower;
    ASSERT_EQ(f16(std::nextafter(middle, INFINITY)).bits, lower + 1) << lower;
    ASSERT_EQ(f16(-middle).bits, even | 0x8000u) << lower;
  }
}

TEST(F16, TheLargestAndSmallestFloatsSaturate) {
  EXPECT_EQ(f16(std::numeric_limits<float>::max()).bits, 0x7c00u);
  EXPECT_EQ(f16(-std::numeric_limits<float>::max()).bits, 0xfc00u);
  EXPECT_EQ(f16(std::numeric_limits<float>::denorm_min()).bits, 0u);
  EXPECT_EQ(f16(-0.0f).bits, 0x8000u);
}

TEST(BF16, EveryPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float value = static_cast<float>(bf16_of(bits));
    const bf16 back(value);
    if ((bits & 0x7fffu) > 0x7f80u) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(static_cast<float>(back))) << bits;
      ASSERT_TRUE(back.bits & 0x40u) << "a quiet NaN, from " << bits;
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(value), bits << 16);
      ASSERT_EQ(back.bits, bits);
    }
  }
}

TEST(BF16, RoundsToNearestEvenBetweenAllNeighbours) {
  for (uint32_t lower = 0; lower < 0x7f80u; ++lower) {  // the last one's upper neighbour is infinity
    const uint32_t middle = (lower << 16) | 0x8000u;
    const uint32_t even = lower % 2 == 0 ? lower : lower + 1;
    ASSERT_EQ(bf16(std::bit_cast<float>(middle)).bits, even) << lower;
    ASSERT_EQ(bf16(std::bit_cast<float>(middle - 1)).bits, lower) << lower;
    ASSERT_EQ(bf16(std::bit_cast<float>(middle + 1)).bits, lower + 1) << lower;
    ASSERT_EQ(bf16(std::bit_cast<float>(middle | 0x80000000u)).bits, even | 0x8000u) << lower;
  }
}

TEST(BF16, NaNsWhosePayloadLiesInTheLostBitsStayNaN) {
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0xffffffffu)))));
  EXPECT_EQ(bf16(INFINITY).bits, 0x7f80u);
  EXPECT_EQ(bf16(-INFINITY).bits, 0xff80u);
}

TEST(DType, SizesAndNamesBelongToTheTypes) {
  EXPECT_EQ(size_of(dtype_of<float>), static_cast<int64_t>(sizeof(float)));
  EXPECT_EQ(size_of(dtype_of<bf16>), static_cast<int64_t>(sizeof(bf16)));
  EXPECT_EQ(size_of(dtype_of<f16>), static_cast<int64_t>(sizeof(f16)));
  EXPECT_EQ(size_of(dtype_of<double>), static_cast<int64_t>(sizeof(double)));
  EXPECT_EQ(size_of(dtype_of<int64_t>), 8);
  EXPECT_EQ(size_of(dtype_of<int32_t>), 4);
  EXPECT_EQ(size_of(dtype_of<uint16_t>), 2);
  EXPECT_EQ(size_of(dtype_of<bool>), static_cast<int64_t>(sizeof(bool)));
  EXPECT_EQ(name_of(dtype_of<bf16>), "bf16");
  EXPECT_EQ(name_of(dtype_of<bool>), "bool");
  EXPECT_TRUE(is_floating(DType::f16));
  EXPECT_FALSE(is_floating(DType::i64));
}

}  // namespace
}  // namespace lathe
