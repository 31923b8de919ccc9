// Completions with what the rewards say of them, and how that is counted.
#pragma once

#include <span>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "train/grpo/generation_batch.h"
#include "train/grpo/grpo_config.h"
#include "train/report.h"

namespace lathe::train {

struct CompletionScores {
  std::vector<ScoredCompletion> completions;
  std::vector<Rewards> by_function;
  Advantages advantages;
  Metrics metrics;  // reward, reward_std, frac_reward_zero_std, rewards/NAME/…, completions/…
};

// What each says, without special tokens.
std::vector<std::string> completion_texts(std::span<const ScoredRollout> rollouts, const data::Tokenizer& tokenizer);

// With `texts`, one for each. Groups of num_generations lie together, one for each of the prompts, which outlive the
// result.
std::vector<ScoredCompletion> scored_completions(std::span<const data::PromptRow> prompts,
                                                 std::span<const ScoredRollout> rollouts,
                                                 std::vector<std::string> texts, int64_t num_generations);

// By each of the functions. Throws StepAbandoned where a reward cannot be had: what the function said, or which row has
// a reward that is no finite number.
std::vector<Rewards> rewards_of(std::span<const ScoredCompletion> completions, std::span<const NamedReward> rewards);

// by_function: what rewards_of() said of the completions of whole groups.
CompletionScores score_completions(std::vector<ScoredCompletion> completions, std::vector<Rewards> by_function,
                                   std::span<const NamedReward> rewards, const AdvantageOptions& options);

// The first completions for the report: what they were to answer, what they say, and the rewards of each.
std::vector<SampleRow> sample_rows(const CompletionScores& scores, const data::Tokenizer& tokenizer,
                                   std::span<const NamedReward> rewards, size_t count);

// All of them as JSON Lines: step, prompt, completion, a key for each reward, advantage.
std::string completion_lines(const CompletionScores& scores, std::span<const NamedReward> rewards, int64_t step);

}  // namespace lathe::train
