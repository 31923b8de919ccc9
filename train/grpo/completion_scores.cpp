#include "train/grpo/completion_scores.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/json_value.h"

namespace lathe::train {
namespace {

Rewards checked(const NamedReward& reward, std::span<const ScoredCompletion> completions) {
  Rewards values;
  try {
    values = reward.score(completions);
  } catch (const Error& error) {
    throw StepAbandoned(error.what());
  }
  if (values.size() != completions.size())
    throw StepAbandoned("the reward " + reward.name + " gave " + std::to_string(values.size()) + " numbers for " +
                        std::to_string(completions.size()) + " completions");
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i] && !std::isfinite(*values[i]))
      throw StepAbandoned(where_of(*completions[i].row) + ": the reward " + reward.name + " is " +
                          std::to_string(*values[i]) + ", which cannot be learnt from");
  return values;
}

// TRL's: of all completions, of those that ended by themselves, and the share of the others.
void add_lengths(Metrics& metrics, std::span<const ScoredCompletion> completions) {
  const auto add = [&](const std::string& suffix, const std::vector<double>& lengths) {
    double sum = 0;
    for (const double length : lengths) sum += length;
    const bool any = !lengths.empty();
    const auto named = [&](const char* statistic) { return std::string("completions/") + statistic + suffix; };
    metrics.emplace_back(named("mean"), any ? sum / static_cast<double>(lengths.size()) : 0);
    metrics.emplace_back(named("min"), any ? *std::min_element(lengths.begin(), lengths.end()) : 0);
    metrics.emplace_back(named("max"), any ? *std::max_element(lengths.begin(), lengths.end()) : 0);
  };
  std::vector<double> all, terminated;
  for (const ScoredCompletion& completion : completions) {
    all.push_back(static_cast<double>(completion.ids.size()));
    if (!completion.truncated) terminated.push_back(all.back());
  }
  add("_length", all);
  metrics.emplace_back("completions/clipped_ratio", static_cast<double>(all.size() - terminated.size()) /
                                                        static_cast<double>(std::max<size_t>(1, all.size())));
  add("_terminated_length", terminated);
}

std::string three_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

}  // namespace

std::vector<std::string> completion_texts(std::span<const ScoredRollout> rollouts, const data::Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  for (const ScoredRollout& scored : rollouts) texts.push_back(tokenizer.decode(scored.rollout.ids, true));
  return texts;
}

std::vector<ScoredCompletion> scored_completions(std::span<const data::PromptRow> prompts,
                                                 std::span<const ScoredRollout> rollouts,
                                                 std::vector<std::string> texts, int64_t num_generations) {
  std::vector<ScoredCompletion> completions;
  for (size_t i = 0; i < rollouts.size(); ++i) {
    const Rollout& rollout = rollouts[i].rollout;
    completions.push_back(
        {&prompts[i / static_cast<size_t>(num_generations)], std::move(texts[i]), rollout.ids, rollout.truncated});
  }
  return completions;
}

std::vector<Rewards> rewards_of(std::span<const ScoredCompletion> completions, std::span<const NamedReward> rewards) {
  std::vector<Rewards> by_function;
  for (const NamedReward& reward : rewards) by_function.push_back(checked(reward, completions));
  return by_function;
}

CompletionScores score_completions(std::vector<ScoredCompletion> completions, std::vector<Rewards> by_function,
                                   std::span<const NamedReward> rewards, const AdvantageOptions& options) {
  CompletionScores scores;
  scores.completions = std::move(completions);
  scores.by_function = std::move(by_function);
  std::vector<double> weights;
  for (const NamedReward& reward : rewards) weights.push_back(reward.weight);
  scores.advantages = compute_advantages(scores.by_function, weights, options);
  Metrics& metrics = scores.metrics;
  metrics.emplace_back("reward", scores.advantages.reward);
  metrics.emplace_back("reward_std", scores.advantages.reward_std);
  metrics.emplace_back("frac_reward_zero_std", scores.advantages.frac_reward_zero_std);
  for (size_t k = 0; k < rewards.size(); ++k) {
    const Spread spread = spread_of(scores.by_function[k]);
    if (spread.mean) metrics.emplace_back("rewards/" + rewards[k].name + "/mean", *spread.mean);
    if (spread.std) metrics.emplace_back("rewards/" + rewards[k].name + "/std", *spread.std);
  }
  add_lengths(metrics, scores.completions);
  return scores;
}

std::vector<SampleRow> sample_rows(const CompletionScores& scores, const data::Tokenizer& tokenizer,
                                   std::span<const NamedReward> rewards, size_t count) {
  std::vector<SampleRow> samples;
  for (size_t i = 0; i < std::min(count, scores.completions.size()); ++i) {
    const ScoredCompletion& completion = scores.completions[i];
    const auto& total = scores.advantages.rewards[i];
    std::string note = "reward " + (total ? three_digits(*total) : "none");
    for (size_t k = 0; k < rewards.size(); ++k)
      if (const auto& value = scores.by_function[k][i]; value && rewards.size() > 1)
        note += ", " + rewards[k].name + " " + three_digits(*value);
    note += ", advantage " + three_digits(scores.advantages.advantages[i]);
    samples.push_back({tokenizer.decode(completion.row->ids), tokenizer.decode(completion.ids), note});
  }
  return samples;
}

std::string completion_lines(const CompletionScores& scores, std::span<const NamedReward> rewards, int64_t step) {
  std::string lines;
  for (size_t i = 0; i < scores.completions.size(); ++i) {
    const ScoredCompletion& completion = scores.completions[i];
    nlohmann::ordered_json line = {{"step", step}, {"prompt", completion.row->prompt}, {"completion", completion.text}};
    for (size_t k = 0; k < rewards.size(); ++k) {
      const auto& value = scores.by_function[k][i];
      line[rewards[k].name] = value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
    }
    line["advantage"] = scores.advantages.advantages[i];
    lines += line.dump() + "\n";
  }
  return lines;
}

}  // namespace lathe::train
