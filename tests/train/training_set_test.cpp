// Rows, their order, and how they are cut into forwards.
#include "train/training_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "train/row_order.h"

namespace lathe::train {
namespace {

using Ids = std::vector<int32_t>;

// Rows of these sequence lengths; every token is a label.
TrainingSet rows_of(std::initializer_list<std::vector<int>> rows) {
  TrainingSet set;
  for (const auto& lengths : rows) {
    bool first = true;
    for (const int length : lengths) {
      const Ids ids(static_cast<size_t>(length), 7);
      first ? set.add_row(ids, ids) : set.add_to_row(ids, ids);
      first = false;
    }
  }
  return set;
}

TEST(TrainingSet, LabelsAreShiftedWithinEachSequence) {
  TrainingSet set;
  set.add_row(Ids{1, 2, 3}, Ids{1, 2, 3});
  set.add_to_row(Ids{4, 5}, Ids{-100, 5});
  const std::vector<int64_t> sequences = {0, 1};
  const MicroBatch batch = make_micro_batch(set, sequences, 0);
  const auto labels = batch.labels.span<int32_t>();
  EXPECT_EQ(Ids(labels.begin(), labels.end()), (Ids{2, 3, -100, 5, -100}));
  EXPECT_EQ(set.labelled_tokens(), 3);
  EXPECT_EQ(set.rows(), 1);
  EXPECT_EQ(set.sequences(), 2);
}

TEST(TrainingSet, AFingerprintChangesWithIdsLabelsAndBorders) {
  TrainingSet a, other_id, other_label, other_border, same;
  a.add_row(Ids{1, 2}, Ids{1, 2});
  a.add_row(Ids{3, 4}, Ids{3, 4});
  same.add_row(Ids{1, 2}, Ids{1, 2});
  same.add_row(Ids{3, 4}, Ids{3, 4});
  other_id.add_row(Ids{1, 2}, Ids{1, 2});
  other_id.add_row(Ids{3, 5}, Ids{3, 4});
  other_label.add_row(Ids{1, 2}, Ids{1, 2});
  other_label.add_row(Ids{3, 4}, Ids{-100, 4});
  other_border.add_row(Ids{1, 2}, Ids{1, 2});
  other_border.add_to_row(Ids{3, 4}, Ids{3, 4});
  EXPECT_EQ(a.fingerprint(), same.fingerprint());
  for (const TrainingSet* other : {&other_id, &other_label, &other_border})
    EXPECT_NE(a.fingerprint(), other->fingerprint());
}

TEST(TrainingSet, ForwardsAreCutAtTheBatchSizeAndTheTokenLimit) {
  const TrainingSet set = rows_of({{3}, {4}, {2, 2}, {9}, {1}});
  const std::vector<int64_t> rows = {0, 1, 2, 3, 4};
  using Cuts = std::vector<std::vector<int64_t>>;
  EXPECT_EQ(cut_into_forwards(set, rows, 8, 0), (Cuts{{0, 1, 2, 3, 4, 5}}));
  EXPECT_EQ(cut_into_forwards(set, rows, 2, 0), (Cuts{{0, 1}, {2, 3, 4}, {5}}));
  EXPECT_EQ(cut_into_forwards(set, rows, 8, 7), (Cuts{{0, 1}, {2, 3}, {4}, {5}})) << "a row of nine tokens runs alone";
}

TEST(TrainingSet, SequencesWithoutTokensOrWithOtherLabelsAreRefused) {
  TrainingSet set;
  EXPECT_THROW(set.add_row({}, {}), ShapeError);
  EXPECT_THROW(set.add_row(Ids{1, 2}, Ids{1}), ShapeError);
}

TEST(RowOrder, EveryRowComesOnceInEachEpochInAnotherOrder) {
  TrainingSettings config;
  config.per_device_train_batch_size = 2;
  config.gradient_accumulation_steps = 2;
  const RowOrder order(11, config);
  EXPECT_EQ(order.steps_per_epoch(), 3);
  EXPECT_EQ(order.total_steps(), 9);
  std::set<std::vector<int64_t>> epochs;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> rows;
    for (int64_t step = 0; step < 3; ++step)
      for (const int64_t row : order.rows_of_step(epoch * 3 + step)) rows.push_back(row);
    epochs.insert(rows);
    std::sort(rows.begin(), rows.end());
    for (int64_t row = 0; row < 11; ++row) EXPECT_EQ(rows.at(static_cast<size_t>(row)), row);
  }
  EXPECT_EQ(epochs.size(), 3u);
}

TEST(RowOrder, HowRowsAreCutIntoMicroBatchesDoesNotChangeTheSteps) {
  TrainingSettings eight, one;
  one.per_device_train_batch_size = 1;
  one.gradient_accumulation_steps = 8;
  const RowOrder a(37, eight), b(37, one);
  ASSERT_EQ(a.total_steps(), b.total_steps());
  for (int64_t step = 0; step < a.total_steps(); ++step) EXPECT_EQ(a.rows_of_step(step), b.rows_of_step(step));
}

TEST(RowOrder, SeveralSourcesWithoutWeightsAreOneEpochAndWithThemHaveNoEnd) {
  TrainingSettings config;
  config.per_device_train_batch_size = 4;
  const RowOrder all({{"a", 5, 5}, {"b", 6, 6}}, config);
  EXPECT_EQ(all.steps_per_epoch(), 3);
  std::vector<int64_t> rows;
  for (int64_t step = 3; step < 6; ++step)
    for (const int64_t row : all.rows_of_step(step)) rows.push_back(row);
  std::sort(rows.begin(), rows.end());
  for (int64_t row = 0; row < 11; ++row) EXPECT_EQ(rows.at(static_cast<size_t>(row)), row);
  EXPECT_EQ(all.rows_drawn(6), (std::vector<std::pair<std::string, double>>{{"rows/a", 10}, {"rows/b", 12}}));

  const RowOrder weighted({{"a", 5, 3}, {"b", 6, 1}}, config);
  for (int64_t step = 0; step < 20; ++step) {
    const std::vector<int64_t> of_step = weighted.rows_of_step(step);
    EXPECT_EQ(of_step.size(), 4u);
    EXPECT_EQ(std::ranges::count_if(of_step, [](int64_t row) { return row < 5; }), 3);
  }
  // Steps that share a draw have its rows; what they drew is counted when they begin.
  const RowOrder twice({{"a", 5, 3}, {"b", 6, 1}}, config, 2, 8);
  EXPECT_EQ(twice.rows_of_step(0), twice.rows_of_step(1));
  EXPECT_EQ(twice.rows_drawn(1), (std::vector<std::pair<std::string, double>>{{"rows/a", 6}, {"rows/b", 2}}));
  EXPECT_EQ(twice.rows_drawn(2), twice.rows_drawn(1));
}

TEST(RowOrder, RanksShareAStepWithoutARowTwiceOrLeftOut) {
  TrainingSettings config;
  config.per_device_train_batch_size = 7;
  const RowOrder order(23, config);
  for (const int64_t ranks : {1, 2, 3, 5, 8}) {
    std::vector<int64_t> epoch;
    for (int64_t step = 0; step < order.steps_per_epoch(); ++step) {
      const std::vector<int64_t> rows = order.rows_of_step(step);
      std::vector<int64_t> together;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const auto own = rows_of_rank(rows, rank, ranks);
        EXPECT_LE(std::abs(std::ssize(own) * ranks - std::ssize(rows)), ranks) << "as many for each as can be";
        together.insert(together.end(), own.begin(), own.end());
      }
      EXPECT_EQ(together, rows);
      epoch.insert(epoch.end(), together.begin(), together.end());
    }
    std::sort(epoch.begin(), epoch.end());
    for (int64_t row = 0; row < 23; ++row) EXPECT_EQ(epoch.at(static_cast<size_t>(row)), row);
  }
}

TEST(TrainingSet, AMixtureIsItsSourcesOneAfterAnother) {
  const TrainingSet a = rows_of({{3}, {4, 2}}), b = rows_of({{5}, {1}});
  const TrainingSet both = TrainingSet::mixed({{"a", a, 1.0}, {"b", b, 0.5}});
  EXPECT_EQ(both.rows(), 4);
  EXPECT_EQ(both.sequences(), 5);
  EXPECT_EQ(both.tokens(), a.tokens() + b.tokens());
  EXPECT_EQ(both.labelled_tokens(), a.labelled_tokens() + b.labelled_tokens());
  EXPECT_EQ(both.longest_sequence(), 5);
  EXPECT_EQ(both.tokens_of_longest_rows(2), 6 + 5);
  EXPECT_EQ(both.sequences_of_row(1), (std::pair<int64_t, int64_t>(1, 3)));
  EXPECT_EQ(both.sequences_of_row(2), (std::pair<int64_t, int64_t>(3, 4)));
  EXPECT_EQ(both.row_tokens(1), 6);
  EXPECT_EQ(both.sequence_tokens(4), 1);
  Ids ids, labels;
  both.append_sequence(3, ids, labels);
  EXPECT_EQ(ids, Ids(5, 7));
  const std::vector<data::MixtureSource> sources = both.sources();
  EXPECT_EQ(sources.at(1).weight * 2, sources.at(0).weight);
  EXPECT_NE(both.fingerprint(), TrainingSet::mixed({{"a", a, 1.0}, {"b", b, 0.6}}).fingerprint());
  EXPECT_NE(both.fingerprint(), TrainingSet::mixed({{"b", b, 0.5}, {"a", a, 1.0}}).fingerprint());
  EXPECT_THROW(TrainingSet::mixed({{"a", a, 1.0}, {"b", b, {}}}), ConfigError);
  EXPECT_THROW(TrainingSet::mixed({{"a", a, 1.0}, {"b", b, -1.0}}), ConfigError);
}

TEST(TrainingSet, RowsKeepTheirText) {
  TrainingSet set;
  set.add_row(Ids{1}, Ids{1});
  const uint64_t without = set.fingerprint();
  set = {};
  set.add_row(Ids{1}, Ids{1}, "one");
  EXPECT_NE(set.fingerprint(), without);
  set.add_row(Ids{2}, Ids{2});
  set.add_row(Ids{3}, Ids{3}, "three");
  EXPECT_EQ(set.row_text(0) + "," + set.row_text(1) + "," + set.row_text(2), "one,,three");
}

TEST(RowOrder, EpochsMayBeFractionsAndMaxStepsOverrides) {
  TrainingSettings config;
  config.num_train_epochs = 0.5;
  EXPECT_EQ(RowOrder(40, config).total_steps(), 3);  // 2.5 steps, rounded up
  config.max_steps = 17;
  EXPECT_EQ(RowOrder(40, config).total_steps(), 17);
  EXPECT_THROW(RowOrder(0, config), ConfigError);
}

}  // namespace
}  // namespace lathe::train
