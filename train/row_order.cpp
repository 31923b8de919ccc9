#include "train/row_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace lathe::train {

RowOrder::RowOrder(int64_t rows, const TrainingConfig& config)
    : rows_(rows),
      rows_per_step_(config.rows_per_step()),
      seed_(static_cast<uint64_t>(config.seed)),
      shuffle_(config.shuffle) {
  if (rows <= 0) throw ConfigError("dataset", "has no row to learn from");
  steps_per_epoch_ = (rows + rows_per_step_ - 1) / rows_per_step_;
  total_steps_ = config.max_steps > 0
                     ? config.max_steps
                     : static_cast<int64_t>(std::ceil(config.num_train_epochs * static_cast<double>(steps_per_epoch_)));
}

std::vector<int64_t> RowOrder::rows_of_step(int64_t step) {
  shuffle_epoch(step / steps_per_epoch_);
  const int64_t begin = step % steps_per_epoch_ * rows_per_step_;
  const int64_t end = std::min(rows_, begin + rows_per_step_);
  return {order_.begin() + begin, order_.begin() + end};
}

void RowOrder::shuffle_epoch(int64_t epoch) {
  if (epoch == shuffled_epoch_) return;
  shuffled_epoch_ = epoch;
  order_.resize(static_cast<size_t>(rows_));
  std::iota(order_.begin(), order_.end(), 0);
  if (!shuffle_) return;
  RandomStream random(seed_, RandomPurpose::shuffle, static_cast<uint64_t>(epoch));
  for (size_t left = order_.size(); left > 1; --left) std::swap(order_[left - 1], order_[random.below(left)]);
}

}  // namespace lathe::train
