#include "train/learning_rate_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lathe::train {

std::optional<Schedule> parse_schedule(std::string_view name) {
  if (name == "linear") return Schedule::linear;
  if (name == "cosine") return Schedule::cosine;
  if (name == "constant") return Schedule::constant;
  if (name == "constant_with_warmup") return Schedule::constant_with_warmup;
  return std::nullopt;
}

double LearningRateSchedule::rate(int64_t step) const {
  if (schedule == Schedule::constant) return peak;
  if (step < warmup_steps)
    return peak * (static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup_steps)));
  if (schedule == Schedule::constant_with_warmup) return peak;
  const auto span = static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps));
  if (schedule == Schedule::linear) return peak * std::max(0.0, static_cast<double>(total_steps - step) / span);
  const double progress = static_cast<double>(step - warmup_steps) / span;
  return peak * std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace lathe::train
