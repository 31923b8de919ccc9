#include "train/row_order.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace lathe::train {

RowOrder::RowOrder(int64_t rows, const TrainingSettings& settings, int64_t updates_per_rows,
                   std::optional<int64_t> rows_per_draw)
    : RowOrder(std::vector<data::MixtureSource>{{"", rows, std::max<int64_t>(1, rows)}}, settings, updates_per_rows,
               rows_per_draw) {}

RowOrder::RowOrder(std::vector<data::MixtureSource> sources, const TrainingSettings& settings, int64_t updates_per_rows,
                   std::optional<int64_t> rows_per_draw)
    : mixture_(std::move(sources), settings.shuffle ? data::Order::shuffled : data::Order::as_given,
               static_cast<uint64_t>(settings.seed)),
      rows_per_draw_(rows_per_draw.value_or(settings.rows_per_step())),
      updates_per_rows_(updates_per_rows),
      in_epochs_(
          std::ranges::all_of(mixture_.sources(), [](const auto& source) { return source.weight == source.rows; })) {
  steps_per_epoch_ = (mixture_.rows() + rows_per_draw_ - 1) / rows_per_draw_ * updates_per_rows_;
  total_steps_ =
      settings.max_steps > 0
          ? settings.max_steps
          : static_cast<int64_t>(std::ceil(settings.num_train_epochs * static_cast<double>(steps_per_epoch_)));
}

int64_t RowOrder::rows_before(int64_t step) const {
  if (!in_epochs_) return step / updates_per_rows_ * rows_per_draw_;
  return step / steps_per_epoch_ * mixture_.rows() + step % steps_per_epoch_ / updates_per_rows_ * rows_per_draw_;
}

std::vector<int64_t> RowOrder::rows_of_step(int64_t step) const {
  const int64_t begin = rows_before(step);
  const int64_t epoch_end = in_epochs_ ? (step / steps_per_epoch_ + 1) * mixture_.rows() : INT64_MAX;
  std::vector<int64_t> rows;
  for (int64_t position = begin; position < std::min(epoch_end, begin + rows_per_draw_); ++position)
    rows.push_back(mixture_.row(position));
  return rows;
}

std::vector<std::pair<std::string, double>> RowOrder::rows_drawn(int64_t steps) const {
  std::vector<std::pair<std::string, double>> drawn;
  const auto& sources = mixture_.sources();
  if (sources.size() < 2) return drawn;
  // The steps so far end where the next draw begins: at that of the next step, or after the one they are in.
  const int64_t next = (steps + updates_per_rows_ - 1) / updates_per_rows_ * updates_per_rows_;
  const std::vector<int64_t> counts = mixture_.drawn(rows_before(next));
  for (size_t i = 0; i < sources.size(); ++i)
    drawn.emplace_back("rows/" + sources[i].name, static_cast<double>(counts[i]));
  return drawn;
}

std::span<const int64_t> rows_of_rank(std::span<const int64_t> rows, int64_t rank, int64_t ranks) {
  return rows_of_ranks(rows, {rank, rank + 1}, ranks);
}

std::span<const int64_t> rows_of_ranks(std::span<const int64_t> rows, std::pair<int64_t, int64_t> own, int64_t ranks) {
  const auto [begin, end] = part_of_ranks(rows.size(), own, ranks);
  return rows.subspan(begin, end - begin);
}

std::pair<size_t, size_t> part_of_ranks(size_t count, std::pair<int64_t, int64_t> own, int64_t ranks) {
  const auto border = [&](int64_t r) { return count * static_cast<size_t>(r) / static_cast<size_t>(ranks); };
  return {border(own.first), border(own.second)};
}

}  // namespace lathe::train
