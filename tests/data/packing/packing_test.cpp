#include "data/packing/packing.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"

namespace lathe::data {
namespace {

std::vector<SftExample> rows_of(const std::vector<std::vector<int32_t>>& ids) {
  std::vector<SftExample> rows;
  for (const auto& row : ids) rows.push_back({row, row});
  return rows;
}

std::vector<PackedExample> packed(const std::vector<std::vector<int32_t>>& ids, int64_t max_length,
                                  PackingStrategy strategy) {
  const std::vector<SftExample> rows = rows_of(ids);
  std::vector<int64_t> lengths;
  for (const auto& row : ids) lengths.push_back(static_cast<int64_t>(row.size()));
  std::vector<PackedExample> examples;
  for (const auto& pieces : pack_rows(lengths, max_length, strategy))
    examples.push_back(packed_example(rows, pieces, strategy));
  return examples;
}

const std::vector<std::vector<int32_t>> rows = {{1, 2, 3, 4, 5}, {6, 7}, {8, 9, 10, 11}, {12}};

TEST(Packing, GivesTheExampleOfTrlsDocuments) {
  const auto bfd = packed(rows, 4, PackingStrategy::bfd);
  ASSERT_EQ(bfd.size(), 3u);
  EXPECT_EQ(bfd[0].input_ids, (std::vector<int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(bfd[1].input_ids, (std::vector<int32_t>{8, 9, 10, 11}));
  EXPECT_EQ(bfd[2].input_ids, (std::vector<int32_t>{6, 7, 12}));
  EXPECT_EQ(bfd[2].sample_lengths, (std::vector<int32_t>{2, 1}));
  const auto split = packed(rows, 4, PackingStrategy::bfd_split);
  EXPECT_EQ(split.back().input_ids, (std::vector<int32_t>{6, 7, 5, 12}));
  EXPECT_EQ(split.back().sample_lengths, (std::vector<int32_t>{2, 1, 1}));
  const auto wrapped = packed(rows, 4, PackingStrategy::wrapped);
  ASSERT_EQ(wrapped.size(), 3u);
  EXPECT_EQ(wrapped[1].input_ids, (std::vector<int32_t>{5, 6, 7, 8}));
  EXPECT_EQ(wrapped[1].sample_lengths, (std::vector<int32_t>{4}));
}

// No token twice, none lost (but bfd's overflow), no sequence too long.
TEST(Packing, KeepsEveryTokenOnce) {
  RandomStream random(11, RandomPurpose::test);
  for (const PackingStrategy strategy : {PackingStrategy::bfd, PackingStrategy::bfd_split, PackingStrategy::wrapped}) {
    std::vector<int64_t> lengths;
    for (int i = 0; i < 2500; ++i) lengths.push_back(static_cast<int64_t>(random.below(40)));
    const int64_t max_length = 32;
    std::vector<std::vector<int>> seen;
    for (const int64_t length : lengths) seen.emplace_back(length);
    for (const auto& pieces : pack_rows(lengths, max_length, strategy)) {
      int64_t total = 0;
      for (const PackedPiece& piece : pieces) {
        ASSERT_LT(piece.begin, piece.end);
        for (int64_t i = piece.begin; i < piece.end; ++i)
          ++seen[static_cast<size_t>(piece.row)][static_cast<size_t>(i)];
        total += piece.end - piece.begin;
      }
      ASSERT_LE(total, max_length);
      ASSERT_GT(total, 0);
    }
    for (const auto& row : seen) {
      for (size_t i = 0; i < row.size(); ++i) {
        ASSERT_EQ(row[i], strategy == PackingStrategy::bfd && i >= static_cast<size_t>(max_length) ? 0 : 1);
      }
    }
  }
}

// First tokens are never predicted: two rows of one token each have no label between them, whatever is in them.
TEST(Packing, SequencesWithNothingToTrainOnAreDropped) {
  const std::vector<SftExample> some = {{{1}, {1}}, {{2, 3}, {2, 3}}, {{4}, {4}}, {{5, 6}, {5, ignored_label}}};
  const PackedRows bfd = pack_examples(some, 2, PackingStrategy::bfd);
  ASSERT_EQ(bfd.examples.size(), 1u);
  EXPECT_EQ(bfd.examples[0].input_ids, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(bfd.dropped, 2);  // [1][4] and [5, 6]
  const PackedRows wrapped = pack_examples(some, 3, PackingStrategy::wrapped);
  ASSERT_EQ(wrapped.examples.size(), 2u) << "one sample each, so that 2 and 3 are predicted, and 5";
  EXPECT_EQ(trained_tokens(wrapped.examples[0]), 2);
  EXPECT_EQ(trained_tokens(wrapped.examples[1]), 1);
  EXPECT_EQ(wrapped.dropped, 0);
}

TEST(Packing, RefusesUnknownNamesAndLengths) {
  EXPECT_THROW(packing_strategy("ffd"), ConfigError);
  EXPECT_THROW(pack_rows(std::vector<int64_t>{1}, 0, PackingStrategy::bfd), ConfigError);
  EXPECT_TRUE(pack_rows({}, 4, PackingStrategy::bfd).empty());
}

}  // namespace
}  // namespace lathe::data
