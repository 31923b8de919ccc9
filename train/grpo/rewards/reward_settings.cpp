#include "train/grpo/rewards/reward_settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "train/grpo/rewards/answers.h"
#include "train/grpo/rewards/json_schema.h"
#include "train/grpo/rewards/reward_process.h"
#include "train/grpo/rewards/shape.h"

namespace lathe::train {
namespace {

const std::vector<std::string> known = {"exact_answer", "number", "regex", "json", "length", "repetition"};

bool has(const RewardSettings& s, const std::string& name) {
  const std::vector<std::string> names = list_parts(s.reward_funcs);
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::optional<double> number_of(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc{} && result.ptr == end && std::isfinite(value) ? std::optional(value) : std::nullopt;
}

}  // namespace

Fields reward_fields(RewardSettings& s) {
  constexpr auto group = Group::model_and_data;
  constexpr auto result = Shapes::result;
  return {
      {"reward_funcs", group,
       "one or several: exact_answer, number (the last one in the completion), regex, json, length, "
       "repetition",
       result, &s.reward_funcs, Values::several},
      {"reward_weights", group, "a number for each reward, the command's last (default: 1 each)", result,
       &s.reward_weights, Values::several},
      {"reward_column", group, "the column that exact_answer and number compare with", result, &s.reward_column},
      {"reward_regex", group, "the pattern of regex: 1 where PCRE2 finds it in the completion", result,
       &s.reward_regex},
      {"reward_json_schema", group, "a file with the schema of json (without: any JSON value)", Shapes::run,
       &s.reward_json_schema},
      {"reward_length", group, "the tokens that length leaves free; from there it falls to -1 at max_completion_length",
       result, &s.reward_length},
      {"reward_ngram_size", group, "the n-grams that repetition counts", result, &s.reward_ngram_size},
      {"reward_command", group,
       "a program as a reward, started once: a line of JSON in for each completion, a line with a number or null out",
       Shapes::run, &s.reward_command},
      {"reward_timeout", group, "seconds that an answer of the program may take", Shapes::run, &s.reward_timeout},
  };
}

void check_rewards(const RewardSettings& s, int64_t max_completion_length, Complaints& wrong) {
  const std::vector<std::string> names = list_parts(s.reward_funcs), weights = list_parts(s.reward_weights);
  for (size_t i = 0; i < names.size(); ++i) {
    wrong.require(std::find(known.begin(), known.end(), names[i]) != known.end(), "reward_funcs",
                  "'" + names[i] +
                      "' is none of exact_answer, number, regex, json, length, repetition; reward_command runs a "
                      "program of your own");
    wrong.require(std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) ==
                      names.begin() + static_cast<std::ptrdiff_t>(i),
                  "reward_funcs", "names " + names[i] + " twice");
  }
  const size_t count = names.size() + (s.reward_command.empty() ? 0 : 1);
  wrong.require(count > 0, "reward_funcs", "there is no reward: name some, or give a reward_command");
  wrong.require(
      weights.empty() || weights.size() == count, "reward_weights",
      "expected " + std::to_string(count) + " numbers, one for each reward, found " + std::to_string(weights.size()));
  for (const std::string& weight : weights)
    wrong.require(number_of(weight).has_value(), "reward_weights", "'" + weight + "' is no number");
  wrong.require(has(s, "regex") == !s.reward_regex.empty(), "reward_regex",
                "goes with the reward regex: give both or neither");
  wrong.require(has(s, "json") || s.reward_json_schema.empty(), "reward_json_schema",
                "has no use without the reward json");
  wrong.require(!reads_column(s) || !s.reward_column.empty(), "reward_column", "is empty");
  wrong.require(s.reward_length >= 0 && (!has(s, "length") || s.reward_length < max_completion_length), "reward_length",
                "must be from 0 to below max_completion_length, found " + std::to_string(s.reward_length));
  wrong.require_positive("reward_ngram_size", s.reward_ngram_size);
  wrong.require(s.reward_timeout > 0 && std::isfinite(s.reward_timeout), "reward_timeout", "must be above 0");
}

bool reads_column(const RewardSettings& s) { return has(s, "exact_answer") || has(s, "number"); }

std::vector<NamedReward> make_rewards(const RewardSettings& s, int64_t max_completion_length) {
  std::vector<NamedReward> rewards;
  for (const std::string& name : list_parts(s.reward_funcs)) {
    RewardFunction score;
    if (name == "exact_answer") score = exact_answer_reward(s.reward_column);
    if (name == "number") score = number_reward(s.reward_column);
    if (name == "regex") score = regex_reward(s.reward_regex);
    if (name == "json") score = json_reward(s.reward_json_schema);
    if (name == "length") score = length_reward(s.reward_length, max_completion_length);
    if (name == "repetition") score = repetition_reward(s.reward_ngram_size);
    rewards.push_back({name, std::move(score)});
  }
  if (!s.reward_command.empty()) {
    const auto process = std::make_shared<RewardProcess>(s.reward_command, s.reward_timeout);
    rewards.push_back(
        {"command", [process](std::span<const ScoredCompletion> completions) { return process->score(completions); }});
  }
  const std::vector<std::string> weights = list_parts(s.reward_weights);
  for (size_t i = 0; i < weights.size(); ++i) rewards[i].weight = number_of(weights[i]).value();
  return rewards;
}

}  // namespace lathe::train
