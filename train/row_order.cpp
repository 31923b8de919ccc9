#include "train/row_order.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "data/shuffle/row_sampler.h"

namespace lathe::train {

RowOrder::RowOrder(int64_t rows, const TrainingSettings& settings, int64_t updates_per_rows,
                   std::optional<int64_t> rows_per_draw)
    : rows_(rows),
      rows_per_draw_(rows_per_draw.value_or(settings.rows_per_step())),
      updates_per_rows_(updates_per_rows),
      seed_(static_cast<uint64_t>(settings.seed)),
      shuffle_(settings.shuffle) {
  if (rows <= 0) throw ConfigError("dataset", "has no row to learn from");
  steps_per_epoch_ = (rows + rows_per_draw_ - 1) / rows_per_draw_ * updates_per_rows_;
  total_steps_ =
      settings.max_steps > 0
          ? settings.max_steps
          : static_cast<int64_t>(std::ceil(settings.num_train_epochs * static_cast<double>(steps_per_epoch_)));
}

std::vector<int64_t> RowOrder::rows_of_step(int64_t step) const {
  const int64_t epoch = step / steps_per_epoch_;
  const int64_t begin = step % steps_per_epoch_ / updates_per_rows_ * rows_per_draw_;
  const data::Permutation permutation(static_cast<uint64_t>(rows_), seed_, static_cast<uint64_t>(epoch));
  std::vector<int64_t> rows;
  for (int64_t position = begin; position < std::min(rows_, begin + rows_per_draw_); ++position)
    rows.push_back(shuffle_ ? static_cast<int64_t>(permutation(static_cast<uint64_t>(position))) : position);
  return rows;
}

}  // namespace lathe::train
