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

std::optional<RewardAggregation> parse_reward_aggregation(std::string_view name) {
  if (name == "sum_then_normalize") return RewardAggregation::sum_then_normalize;
  if (name == "normalize_then_sum") return RewardAggregation::normalize_then_sum;
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

namespace {

// Of each completion; nothing where no function gave a number.
std::vector<std::optional<double>> weighted_sums(std::span<const Rewards> by_function,
                                                 std::span<const double> weights) {
  std::vector<std::optional<double>> sums(by_function.empty() ? 0 : by_function[0].size());
  for (size_t k = 0; k < by_function.size(); ++k)
    for (size_t i = 0; i < sums.size(); ++i)
      if (const auto& reward = by_function[k][i]) sums[i] = sums[i].value_or(0) + weights[k] * *reward;
  return sums;
}

// Less the group's mean, by its deviation; a value that is alone in its group has none.
Rewards normalised_in_groups(const Rewards& rewards, size_t group_size) {
  Rewards result = rewards;
  for (size_t first = 0; first + group_size <= rewards.size(); first += group_size) {
    const Spread group = spread_of(std::span(rewards).subspan(first, group_size));
    for (size_t i = first; i < first + group_size; ++i)
      if (result[i]) result[i] = (*result[i] - *group.mean) / (group.std.value_or(0) + std_floor);
  }
  return result;
}

std::vector<double> normalised_sums(std::span<const Rewards> by_function, std::span<const double> weights,
                                    size_t group_size) {
  std::vector<Rewards> normalised;
  for (const Rewards& rewards : by_function) normalised.push_back(normalised_in_groups(rewards, group_size));
  const auto sums = weighted_sums(normalised, weights);
  const Spread batch = spread_of(sums);
  std::vector<double> advantages(sums.size(), 0.0);
  for (size_t i = 0; i < sums.size(); ++i)
    if (sums[i]) advantages[i] = (*sums[i] - *batch.mean) / (batch.std.value_or(0) + std_floor);
  return advantages;
}

}  // namespace

Advantages compute_advantages(std::span<const Rewards> by_function, std::span<const double> weights,
                              const AdvantageOptions& options) {
  Advantages result;
  result.rewards = weighted_sums(by_function, weights);
  const size_t completions = result.rewards.size();
  result.advantages.assign(completions, 0.0);

  const Spread batch = spread_of(result.rewards);
  result.reward = batch.mean.value_or(0);
  result.reward_std = batch.std.value_or(0);
  const auto group_size = static_cast<size_t>(options.num_generations);
  const size_t groups = completions / group_size;
  size_t equal = 0;
  for (size_t g = 0; g < groups; ++g) {
    const size_t first = g * group_size;
    const Spread group = spread_of(std::span(result.rewards).subspan(first, group_size));
    equal += group.std && *group.std <= zero_std;
    const std::optional<double> std = options.scaling == RewardScaling::batch ? batch.std : group.std;
    for (size_t i = first; i < first + group_size; ++i) {
      if (!result.rewards[i]) continue;
      const double difference = *result.rewards[i] - *group.mean;
      // A completion alone has no deviation, and its difference is 0.
      result.advantages[i] =
          options.scaling == RewardScaling::none ? difference : difference / (std.value_or(0) + std_floor);
    }
  }
  if (options.aggregation == RewardAggregation::normalize_then_sum)
    result.advantages = normalised_sums(by_function, weights, group_size);
  if (groups > 0) result.frac_reward_zero_std = static_cast<double>(equal) / static_cast<double>(groups);
  return result;
}

}  // namespace lathe::train
