// Which rows an optimiser step learns from: a pure function of (seed, step), so that a resumed run goes on exactly.
// Several sources are mixed by weight (data/shuffle/mixture.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/shuffle/mixture.h"
#include "train/settings/training_settings.h"

namespace lathe::train {

class RowOrder {
 public:
  // Of one source. As below.
  RowOrder(int64_t rows, const TrainingSettings& settings, int64_t updates_per_rows = 1,
           std::optional<int64_t> rows_per_draw = {});
  // `updates_per_rows` steps in turn learn from the same rows, of which there are rows_per_draw, or as many as a step
  // has by the settings. ConfigError when there are no rows.
  RowOrder(std::vector<data::MixtureSource> sources, const TrainingSettings& settings, int64_t updates_per_rows = 1,
           std::optional<int64_t> rows_per_draw = {});

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // max_steps, or num_train_epochs passes, the last rows of each being what is left.
  int64_t total_steps() const { return total_steps_; }
  // The rows of a step (counted from 0), in order, counted through all sources. Of one source, or without weights,
  // every row comes once in an epoch, whose last step has what is left; with weights every step is full, and an epoch
  // is as many rows as all sources have.
  std::vector<int64_t> rows_of_step(int64_t step) const;
  double epoch_after(int64_t steps) const { return static_cast<double>(steps) / static_cast<double>(steps_per_epoch_); }

  // Of several sources, what the first `steps` steps drew from each: ("rows/a.jsonl", 1200). Empty for one source.
  std::vector<std::pair<std::string, double>> rows_drawn(int64_t steps) const;

 private:
  int64_t rows_before(int64_t step) const;  // drawn by the steps before the draw that this one learns from

  data::Mixture mixture_;
  int64_t rows_per_draw_, updates_per_rows_, steps_per_epoch_ = 0, total_steps_ = 0;
  bool in_epochs_;
};

// The rows of a step that this rank learns from, of `ranks` that share the step: disjoint, all of them together, and
// as many for each rank as can be, in the step's order.
std::span<const int64_t> rows_of_rank(std::span<const int64_t> rows, int64_t rank, int64_t ranks);
// Those of the ranks [own.first, own.second), which lie next to each other.
std::span<const int64_t> rows_of_ranks(std::span<const int64_t> rows, std::pair<int64_t, int64_t> own, int64_t ranks);
// The same of anything that is counted: [first, second) of `count`.
std::pair<size_t, size_t> part_of_ranks(size_t count, std::pair<int64_t, int64_t> own, int64_t ranks);

}  // namespace lathe::train
