// Rewards that compare a completion with a column of its row, or with a pattern. 1 where it fits, 0 where not; nothing
// for a row without the column.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "train/grpo/rewards/reward.h"

namespace lathe::train {

// The completion, without the space around it, is the column's text.
RewardFunction exact_answer_reward(std::string column);

// The last number of the completion is the column's: 1,234.50 and 1234.5 are the same number. FormatError for a column
// that holds none.
RewardFunction number_reward(std::string column);

// PCRE2 finds the pattern in the completion. ConfigError for a pattern that cannot be compiled.
RewardFunction regex_reward(const std::string& pattern);

// The last number in a text: digits, with or without a sign, commas between groups of three, a fraction, an exponent.
std::optional<double> last_number(std::string_view text);

}  // namespace lathe::train
