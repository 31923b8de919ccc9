// Which rows an optimiser step learns from: a pure function of (seed, step), so that a resumed run goes on exactly.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "train/settings/training_settings.h"

namespace lathe::train {

class RowOrder {
 public:
  // `updates_per_rows` steps in turn learn from the same rows, of which there are rows_per_draw, or as many as a step
  // has by the settings. ConfigError when there are no rows.
  RowOrder(int64_t rows, const TrainingSettings& settings, int64_t updates_per_rows = 1,
           std::optional<int64_t> rows_per_draw = {});

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // max_steps, or num_train_epochs passes, the last rows of each being what is left.
  int64_t total_steps() const { return total_steps_; }
  // The rows of a step (counted from 0), in order. Every row is drawn once in an epoch.
  std::vector<int64_t> rows_of_step(int64_t step) const;
  double epoch_after(int64_t steps) const { return static_cast<double>(steps) / static_cast<double>(steps_per_epoch_); }

 private:
  int64_t rows_, rows_per_draw_, updates_per_rows_, steps_per_epoch_ = 0, total_steps_ = 0;
  uint64_t seed_;
  bool shuffle_;
};

}  // namespace lathe::train
