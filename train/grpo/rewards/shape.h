// Rewards for how a completion is shaped, whatever it says; formulas of TRL's rewards of the same names.
#pragma once

#include <cstdint>

#include "train/grpo/rewards/reward.h"

namespace lathe::train {

// Soft overlong punishment (DAPO, eq. 13): 0 up to `free_tokens`, from there down to −1 at max_completion_length.
RewardFunction length_reward(int64_t free_tokens, int64_t max_completion_length);

// −(1 − different / all) of the n-grams of tokens; 0 for fewer than n tokens.
RewardFunction repetition_reward(int64_t ngram_size);

}  // namespace lathe::train
