// Rewards to advantages as TRL computes them (tests/golden/grpo/advantages.json), and what has no reward.
#include "train/grpo/advantages.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"

namespace lathe::train {
namespace {

using nlohmann::json;

std::vector<Rewards> by_function(const json& table) {
  std::vector<Rewards> columns(table[0].size());
  for (const json& row : table)
    for (size_t k = 0; k < row.size(); ++k)
      columns[k].push_back(row[k].is_null() ? std::optional<double>() : row[k].get<double>());
  return columns;
}

TEST(Advantages, AreTrls) {
  for (const json& expected : json::parse(bytes_of(golden("grpo/advantages.json")))) {
    SCOPED_TRACE(expected.dump());
    const std::vector<Rewards> rewards = by_function(expected["rewards"]);
    const auto scaling = parse_reward_scaling(expected["scale_rewards"].get<std::string>()).value();
    const Advantages found = compute_advantages(rewards, expected["weights"].get<std::vector<double>>(),
                                                {expected["num_generations"].get<int64_t>(), scaling});
    // TRL has n / (n − 1) in float32.
    for (size_t i = 0; i < found.advantages.size(); ++i)
      EXPECT_NEAR(found.advantages[i], expected["advantages"][i].get<double>(), 1e-7) << i;
    EXPECT_NEAR(found.reward, expected["reward"].get<double>(), 1e-7);
    EXPECT_NEAR(found.reward_std, expected["reward_std"].get<double>(), 1e-7);
    // With "batch" TRL looks at the batch's deviation; here it is the groups' whatever the scaling.
    if (scaling != RewardScaling::batch) {
      EXPECT_NEAR(found.frac_reward_zero_std, expected["frac_reward_zero_std"].get<double>(), 1e-7);
    }
    for (size_t k = 0; k < rewards.size(); ++k) {
      const Spread spread = spread_of(rewards[k]);
      EXPECT_NEAR(spread.mean.value(), expected["function_means"][k].get<double>(), 1e-7);
      EXPECT_NEAR(spread.std.value(), expected["function_stds"][k].get<double>(), 1e-7);
    }
  }
}

TEST(Advantages, OfRewardsThatAreNormalisedOneByOneAreTrls) {
  const json cases = json::parse(bytes_of(golden("grpo/advantages_one_by_one.json")));
  ASSERT_EQ(cases.size(), 3u);
  for (const json& expected : cases) {
    SCOPED_TRACE(expected.dump());
    const Advantages found = compute_advantages(
        by_function(expected["rewards"]), expected["weights"].get<std::vector<double>>(),
        {expected["num_generations"].get<int64_t>(), RewardScaling::group, RewardAggregation::normalize_then_sum});
    for (size_t i = 0; i < found.advantages.size(); ++i)
      EXPECT_NEAR(found.advantages[i], expected["advantages"][i].get<double>(), 1e-6) << i;
    EXPECT_NEAR(found.reward, expected["reward"].get<double>(), 1e-7);
    EXPECT_NEAR(found.reward_std, expected["reward_std"].get<double>(), 1e-7);
  }
}

TEST(Advantages, OneUnscoredCompletionLeavesTheOthersAsTheyAre) {
  const std::vector<Rewards> rewards = {{1.0, {}, 3.0, {}}};
  const std::vector<double> weights = {1.0};
  const Advantages found = compute_advantages(rewards, weights, {2, RewardScaling::group});
  EXPECT_EQ(found.advantages, (std::vector<double>{0, 0, 0, 0}))
      << "alone in its group there is nothing to compare with";
  EXPECT_EQ(found.reward, 2.0);
  EXPECT_FALSE(found.rewards[1].has_value());
}

}  // namespace
}  // namespace lathe::train
