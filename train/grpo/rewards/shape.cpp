#include "train/grpo/rewards/shape.h"

#include <algorithm>
#include <set>
#include <vector>

namespace lathe::train {

RewardFunction length_reward(int64_t free_tokens, int64_t max_completion_length) {
  return [=](std::span<const ScoredCompletion> completions) {
    Rewards rewards;
    for (const ScoredCompletion& completion : completions) {
      const auto over = static_cast<double>(static_cast<int64_t>(completion.ids.size()) - free_tokens);
      const auto room = static_cast<double>(std::max<int64_t>(1, max_completion_length - free_tokens));
      rewards.emplace_back(over <= 0 ? 0.0 : -std::min(1.0, over / room));
    }
    return rewards;
  };
}

RewardFunction repetition_reward(int64_t ngram_size) {
  return [n = static_cast<size_t>(ngram_size)](std::span<const ScoredCompletion> completions) {
    Rewards rewards;
    for (const auto& [row, text, ids, truncated] : completions) {
      std::set<std::vector<int32_t>> different;
      size_t all = 0;
      for (size_t i = 0; i + n <= ids.size(); ++i, ++all)
        different.emplace(ids.begin() + static_cast<std::ptrdiff_t>(i),
                          ids.begin() + static_cast<std::ptrdiff_t>(i + n));
      rewards.emplace_back(all == 0 ? 0.0 : static_cast<double>(different.size()) / static_cast<double>(all) - 1.0);
    }
    return rewards;
  };
}

}  // namespace lathe::train
