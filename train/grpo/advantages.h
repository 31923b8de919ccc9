// From rewards to advantages, as TRL 1.16: R = Σ wₖ · rₖ over the functions that gave a number, A = R − mean of the
// group, divided by a standard deviation + 1e-4 (unbiased, of the group or of the batch) or by nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/objective.h"

namespace lathe::train {

enum class RewardScaling { group, batch, none };
std::optional<RewardScaling> parse_reward_scaling(std::string_view name);

// With several functions, normalize_then_sum (GDPO, arXiv 2601.05242) compares each function's rewards with those of
// its group first: rₖ ← (rₖ − mean of the group) ÷ (its deviation + 1e-4), R = Σ wₖ · rₖ, A = (R − mean) ÷ (deviation +
// 1e-4) over the batch, whatever the scaling.
enum class RewardAggregation { sum_then_normalize, normalize_then_sum };
std::optional<RewardAggregation> parse_reward_aggregation(std::string_view name);

// What one reward function says of each completion; nothing where it does not apply.
using Rewards = std::vector<std::optional<double>>;

struct AdvantageOptions {
  int64_t num_generations = 8;
  RewardScaling scaling = RewardScaling::group;
  RewardAggregation aggregation = RewardAggregation::sum_then_normalize;
};

struct Advantages {
  // Of each completion. A completion that no function gave a number has no reward and the advantage 0, and is left out
  // of means and deviations.
  std::vector<std::optional<double>> rewards;
  std::vector<double> advantages;
  double reward = 0, reward_std = 0;  // mean and unbiased deviation over the batch
  double frac_reward_zero_std = 0;    // groups whose rewards are all equal: nothing can be learnt from them
};

// by_function[k][i]: function k of completion i; completions of a group of num_generations lie together. One weight for
// each function.
Advantages compute_advantages(std::span<const Rewards> by_function, std::span<const double> weights,
                              const AdvantageOptions& options);

// Mean and unbiased standard deviation of what is there; nothing for no value, no deviation for a single one.
struct Spread {
  std::optional<double> mean, std;
};
Spread spread_of(std::span<const std::optional<double>> values);

}  // namespace lathe::train
