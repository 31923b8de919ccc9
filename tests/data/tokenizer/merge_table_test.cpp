#include "data/tokenizer/merge_table.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"

namespace lathe::data {
namespace {

constexpr int32_t beyond = int32_t{1} << 21;  // the ids that a pair has room for

TEST(MergeTable, HasEveryPairWithItsLastRank) {
  const std::vector<BpeMerge> merges = {{1, 5, 10}, {5, 1, 11}, {1, 5, 12}};
  const MergeTable table(merges);
  EXPECT_EQ(table.rank(1, 5), 2u);
  EXPECT_EQ(table.result(2), 12);
  EXPECT_EQ(table.rank(5, 1), 1u);
  EXPECT_EQ(table.rank(1, 1), MergeTable::no_rank);
}

TEST(MergeTable, TakesNoIdsForAnotherPair) {
  const std::vector<BpeMerge> merges = {{1, 5, 10}};
  const MergeTable table(merges);
  EXPECT_EQ(table.rank(0, beyond | 5), MergeTable::no_rank);  // the bits of 1 and 5
  EXPECT_EQ(table.rank(beyond | 1, 5), MergeTable::no_rank);
  EXPECT_EQ(table.rank(1, -1), MergeTable::no_rank);
  EXPECT_EQ(table.rank(-1, 5), MergeTable::no_rank);
}

TEST(MergeTable, RefusesIdsThatAreTooLarge) {
  EXPECT_NO_THROW(MergeTable(std::vector<BpeMerge>{{beyond - 2, 0, 1}}));
  EXPECT_THROW(MergeTable(std::vector<BpeMerge>{{beyond - 1, 0, 1}}), ConfigError);
  EXPECT_THROW(MergeTable(std::vector<BpeMerge>{{0, beyond, 1}}), ConfigError);
}

}  // namespace
}  // namespace lathe::data
