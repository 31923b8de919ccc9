#include "train/grpo/advantages.h"

#include <cmath>

namespace lathe::train {
namespace {

constexpr double std_floor = 1e-4;
constexpr double zero_std = 1e-8;  // torch.isclose to 0

}  // namespace

std::optional<RewardScaling> parse_reward_scaling(std::string_view name) {
  // TRL takes the truth values of its older versions, too.
  if (name == "group" || name == "true" || name == "True") return RewardScaling::group;
  if (name == "batch") return RewardScaling::batch;
  if (name == "none" || name == "false" || name == "False") return RewardScaling::none;
  return {};
}

Spread spread_of(std::span<const std::optional<double>> values) {
  double sum = 0, squares = 0;
  int64_t count = 0;
  for (const auto& value : values) {
    if (!value) continue;
    sum += *value;
    ++count;
  }
  if (count == 0) return {};
  const double mean = sum / static_cast<double>(count);
  if (count == 1) return {mean, {}};
  for (const auto& value : values)
    if (value) squares += (*value - mean) * (*value - mean);
  return {mean, std::sqrt(squares / static_cast<double>(count - 1))};
}

Advantages compute_advantages(std::span<const Rewards> by_function, std::span<const double> weights,
                              int64_t num_generations, RewardScaling scaling) {
  Advantages result;
  const size_t completions = by_function.empty() ? 0 : by_function[0].size();
  result.rewards.resize(completions);
  result.advantages.assign(completions, 0.0);
  for (size_t i = 0; i < completions; ++i)
    for (size_t k = 0; k < by_function.size(); ++k)
      if (const auto& reward = by_function[k][i])
        result.rewards[i] = result.rewards[i].value_or(0) + weights[k] * *reward;

  const Spread batch = spread_of(result.rewards);
  result.reward = batch.mean.value_or(0);
  result.reward_std = batch.std.value_or(0);
  const auto group_size = static_cast<size_t>(num_generations);
  const size_t groups = completions / group_size;
  size_t equal = 0;
  for (size_t g = 0; g < groups; ++g) {
    const size_t first = g * group_size;
    const Spread group = spread_of(std::span(result.rewards).subspan(first, group_size));
    equal += group.std && *group.std <= zero_std;
    const std::optional<double> std = scaling == RewardScaling::batch ? batch.std : group.std;
    for (size_t i = first; i < first + group_size; ++i) {
      if (!result.rewards[i]) continue;
      const double difference = *result.rewards[i] - *group.mean;
      // A completion alone has no deviation, and its difference is 0.
      result.advantages[i] = scaling == RewardScaling::none ? difference : difference / (std.value_or(0) + std_floor);
    }
  }
  if (groups > 0) result.frac_reward_zero_std = static_cast<double>(equal) / static_cast<double>(groups);
  return result;
}

}  // namespace lathe::train
