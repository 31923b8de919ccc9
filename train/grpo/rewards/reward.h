// What scores completions: one function. A reward of one's own is such a function in a NamedReward.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/rows/prompt_rows.h"
#include "train/grpo/advantages.h"

namespace lathe::train {

struct ScoredCompletion {
  const data::PromptRow* row = nullptr;  // the prompt, every other column of its row, and where it stands
  std::string text;                      // decoded, without special tokens
  std::vector<int32_t> ids;              // with the stop token, where there is one
  bool truncated = false;                // ended by max_completion_length
};

// A reward for each completion, in order; nothing where the function does not apply. Throws an Error that names the row
// (where_of) for a row that it cannot score.
using RewardFunction = std::function<Rewards(std::span<const ScoredCompletion>)>;

struct NamedReward {
  std::string name;  // in rewards/NAME/mean
  RewardFunction score;
  double weight = 1.0;
};

// "rows.jsonl, line 12".
std::string where_of(const data::PromptRow& row);

// The row's column as text: a string as it is, anything else as its JSON; nothing where it is null or missing.
std::optional<std::string> column_text(const data::PromptRow& row, const std::string& column);

}  // namespace lathe::train
