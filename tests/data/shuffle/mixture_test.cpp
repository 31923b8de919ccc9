#include "data/shuffle/mixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/random.h"
#include "data/shuffle/permutation.h"

namespace lathe::data {
namespace {

std::string error(std::vector<MixtureSource> sources) {
  try {
    const Mixture mixture(std::move(sources), Order::shuffled, 1);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Mixture, OneSourceIsItsPermutationEpochAfterEpoch) {
  const Mixture mixture({{"a", 17, 5}}, Order::shuffled, 42);
  for (int64_t position = 0; position < 51; ++position)
    EXPECT_EQ(mixture.row(position), static_cast<int64_t>(Permutation(17, 42, static_cast<uint64_t>(position / 17))(
                                         static_cast<uint64_t>(position % 17))));
}

// Whatever the weights, at every position: less than one row for each level of the tree.
TEST(Mixture, SharesAreExactAtEveryPosition) {
  RandomStream random(3, RandomPurpose::test);
  for (const size_t count : {2u, 3u, 7u, 20u}) {
    std::vector<MixtureSource> sources;
    int64_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
      sources.push_back({"s" + std::to_string(i), static_cast<int64_t>(1 + random.below(50)),
                         static_cast<int64_t>(1 + random.below(i % 2 ? 9 : 1000000))});
      sum += sources.back().weight;
    }
    const Mixture mixture(sources, Order::shuffled, 9);
    const double bound = std::ceil(std::log2(static_cast<double>(count))) + 1e-6;
    std::vector<int64_t> counts(count);
    for (int64_t position = 0; position < 3000; ++position) {
      EXPECT_EQ(mixture.drawn(position), counts);
      ++counts[mixture.place(position).source];
      for (size_t i = 0; i < count; ++i)
        ASSERT_LE(std::abs(static_cast<double>(counts[i]) - static_cast<double>(position + 1) *
                                                                static_cast<double>(sources[i].weight) /
                                                                static_cast<double>(sum)),
                  bound);
    }
    // Far out, where 64 bits would not hold the product.
    const int64_t far = int64_t{1} << 52;
    const std::vector<int64_t> drawn = mixture.drawn(far);
    for (size_t i = 0; i < count; ++i)
      EXPECT_LE(std::abs(static_cast<long double>(drawn[i]) -
                         static_cast<long double>(far) * sources[i].weight / static_cast<long double>(sum)),
                bound + 1);
  }
}

TEST(Mixture, EachSourceGivesAllItsRowsBeforeOneComesAgain) {
  const Mixture mixture({{"a", 5, 3}, {"b", 40, 7}, {"c", 11, 7}}, Order::shuffled, 4);
  std::vector<std::vector<int64_t>> rows(3);
  for (int64_t position = 0; position < 2000; ++position) {
    const auto [source, row] = mixture.place(position);
    rows[source].push_back(row);
  }
  for (size_t source = 0; source < 3; ++source) {
    const auto size = static_cast<size_t>(mixture.sources()[source].rows);
    std::vector<std::vector<int64_t>> epochs;
    for (size_t begin = 0; begin + size <= rows[source].size(); begin += size) {
      std::vector<int64_t> epoch(rows[source].begin() + static_cast<std::ptrdiff_t>(begin),
                                 rows[source].begin() + static_cast<std::ptrdiff_t>(begin + size));
      epochs.push_back(epoch);
      std::sort(epoch.begin(), epoch.end());
      for (size_t row = 0; row < size; ++row) ASSERT_EQ(epoch[row], static_cast<int64_t>(row));
    }
    EXPECT_NE(epochs.at(0), epochs.at(1)) << "another order in each epoch";
  }
}

TEST(Mixture, WithWeightsThatAreTheRowsEveryRowComesOnceInAnEpoch) {
  const Mixture mixture({{"a", 5, 5}, {"b", 40, 40}, {"c", 11, 11}}, Order::shuffled, 4);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < 56; ++i) rows.push_back(mixture.row(epoch * 56 + i));
    std::sort(rows.begin(), rows.end());
    for (int64_t row = 0; row < 56; ++row) EXPECT_EQ(rows[static_cast<size_t>(row)], row);
  }
}

TEST(Mixture, SourcesOfOneSizeHaveOrdersOfTheirOwn) {
  const Mixture mixture({{"a", 30, 1}, {"b", 30, 1}}, Order::shuffled, 4);
  std::vector<std::vector<int64_t>> rows(2);
  for (int64_t position = 0; position < 60; ++position)
    rows[mixture.place(position).source].push_back(mixture.place(position).row);
  EXPECT_NE(rows[0], rows[1]);
}

TEST(Mixture, KeepsTheGivenOrderOfEachSourceWhenAsked) {
  const Mixture mixture({{"a", 2, 1}, {"b", 3, 1}}, Order::as_given, 4);
  std::vector<int64_t> rows;
  for (int64_t position = 0; position < 6; ++position) rows.push_back(mixture.row(position));
  EXPECT_EQ(rows, (std::vector<int64_t>{2, 0, 3, 1, 4, 0}));
}

TEST(Mixture, RefusesWhatCannotBeDrawnFrom) {
  EXPECT_NE(error({}).find("has no row to learn from"), std::string::npos);
  EXPECT_NE(error({{"a.jsonl", 0, 1}}).find("a.jsonl has no row"), std::string::npos);
  EXPECT_NE(error({{"a.jsonl", 3, 0}}).find("a.jsonl has a weight"), std::string::npos);
  EXPECT_NE(error({{"a", 3, INT64_MAX}, {"b", 3, INT64_MAX}}).find("a has a weight"), std::string::npos);
  EXPECT_EQ(whole_weight(0.7, "a"), 700000);
  EXPECT_EQ(whole_weight(2, "a"), 2000000);
  for (const double weight : {0.0, -1.0, 1e-7, 1e7, std::nan(""), std::numeric_limits<double>::infinity()})
    EXPECT_THROW(whole_weight(weight, "a"), ConfigError) << weight;
}

}  // namespace
}  // namespace lathe::data
