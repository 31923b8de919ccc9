#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "core/error.h"

namespace lathe {
namespace {

// The known answers that Random123 publishes for philox4x32 with ten rounds (kat_vectors).
TEST(Philox, GivesRandom123sKnownAnswers) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}), (PhiloxCounter{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(philox4x32_10({0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}, {0xffffffffu, 0xffffffffu}),
            (PhiloxCounter{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox4x32_10({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
            (PhiloxCounter{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(RandomBits, EveryCoordinateMatters) {
  const auto bits = [](uint64_t seed, RandomPurpose purpose, uint64_t step, uint64_t position) {
    return random_bits(seed, purpose, step, position);
  };
  const uint64_t top = uint64_t{1} << 47;
  const std::set<PhiloxCounter> all = {bits(0, RandomPurpose::init, 0, 0),
                                       bits(1, RandomPurpose::init, 0, 0),
                                       bits(uint64_t{1} << 63, RandomPurpose::init, 0, 0),
                                       bits(0, RandomPurpose::dropout, 0, 0),
                                       bits(0, RandomPurpose::init, 1, 0),
                                       bits(0, RandomPurpose::init, top, 0),
                                       bits(0, RandomPurpose::init, uint64_t{1} << 32, 0),
                                       bits(0, RandomPurpose::init, 0, 1),
                                       bits(0, RandomPurpose::init, 0, uint64_t{1} << 32),
                                       bits(0, RandomPurpose::init, 0, top)};
  EXPECT_EQ(all.size(), 10u);
}

TEST(RandomStream, ReadsTheBlocksInOrder) {
  RandomStream stream(7, RandomPurpose::test, 3);
  for (uint64_t position = 0; position < 3; ++position) {
    for (const uint32_t word : random_bits(7, RandomPurpose::test, 3, position)) {
      EXPECT_EQ(stream.next_u32(), word);
    }
  }
}

TEST(RandomStream, UniformIsBelowOneAndNormalIsFiniteAtTheExtremes) {
  EXPECT_EQ(uniform_from_bits(0), 0.0f);
  EXPECT_LT(uniform_from_bits(0xffffffffu), 1.0f);
  // sqrt(-2 ln 2^-24) = 5.7681, the farthest draw there is.
  EXPECT_NEAR(normal_from_bits(0, 0), 5.76810f, 1e-5f);
  EXPECT_EQ(normal_from_bits(0xffffffffu, 0), 0.0f);
}

// Bounds at six standard errors: mean 1/sqrt(n), second moment sqrt(2/n), fourth sqrt(96/n).
TEST(RandomStream, NormalHasTheMomentsOfANormal) {
  RandomStream stream(11, RandomPurpose::test);
  const int n = 200000;
  double m1 = 0, m2 = 0, m4 = 0;
  for (int i = 0; i < n; ++i) {
    const double x = stream.normal();
    m1 += x / n;
    m2 += x * x / n;
    m4 += x * x * x * x / n;
  }
  EXPECT_NEAR(m1, 0.0, 6 * std::sqrt(1.0 / n));
  EXPECT_NEAR(m2, 1.0, 6 * std::sqrt(2.0 / n));
  EXPECT_NEAR(m4, 3.0, 6 * std::sqrt(96.0 / n));
}

TEST(RandomStream, BelowCoversItsRangeEvenly) {
  RandomStream stream(5, RandomPurpose::test);
  const int draws = 70000;
  std::vector<int> counts(7);
  for (int i = 0; i < draws; ++i) ++counts.at(stream.below(7));
  // Each count is binomial(70000, 1/7): standard deviation 92.6, bound at six of them.
  for (const int count : counts) EXPECT_NEAR(count, draws / 7, 6 * 92.6);
  EXPECT_EQ(stream.below(1), 0u);
  EXPECT_THROW(stream.below(0), Error);
}

// For n = 2^63 + 1 nearly half of all draws are refused; a plain remainder would favour the low numbers 2:1.
TEST(RandomStream, BelowIsUnbiasedForHugeRanges) {
  RandomStream stream(6, RandomPurpose::test);
  const uint64_t n = (uint64_t{1} << 63) + 1;
  const int draws = 20000;
  int low = 0;
  for (int i = 0; i < draws; ++i) low += stream.below(n) < n / 2;
  EXPECT_NEAR(low, draws / 2, 6 * std::sqrt(draws / 4.0));
}

}  // namespace
}  // namespace lathe
