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
