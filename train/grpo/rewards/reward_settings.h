// Which rewards a run has: --reward_funcs by name, their parameters, --reward_command, and the weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/grpo/rewards/reward.h"
#include "train/settings/field.h"

namespace lathe::train {

struct RewardSettings {
  std::string reward_funcs;    // exact_answer, number, regex, json, length, repetition; commas between them
  std::string reward_weights;  // numbers with commas between them; empty: 1 for each
  std::string reward_column = "answer";
  std::string reward_regex;
  std::string reward_json_schema;
  int64_t reward_length = 0;
  int64_t reward_ngram_size = 3;
  std::string reward_command;
  double reward_timeout = 60;
};

Fields reward_fields(RewardSettings& settings);
void check_rewards(const RewardSettings& settings, int64_t max_completion_length, Complaints& wrong);

// In the order of reward_funcs, the command last. ConfigError for a pattern or a schema that cannot be read.
std::vector<NamedReward> make_rewards(const RewardSettings& settings, int64_t max_completion_length);

// The columns that these rewards look at: a row without them cannot be scored.
bool reads_column(const RewardSettings& settings);

}  // namespace lathe::train
