#include "train/grpo/shared_answers.h"

#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "train/objective.h"

namespace lathe::train {
namespace {

using nlohmann::ordered_json;

// What travels is JSON, in which numbers come back to the bit.
std::string rewards_text(const std::vector<Rewards>& rewards) {
  ordered_json functions = ordered_json::array();
  for (const Rewards& of_function : rewards) {
    ordered_json& values = functions.emplace_back(ordered_json::array());
    for (const auto& value : of_function) values.push_back(value ? ordered_json(*value) : ordered_json());
  }
  return ordered_json{{"rewards", functions}}.dump();
}

// To the rewards of the processes before.
void append_rewards(std::vector<Rewards>& all, std::string_view text, const std::string& from) {
  const ordered_json json = parse_json(text, from);
  const ordered_json& functions = json_list(json, "rewards", from);
  all.resize(std::max(all.size(), functions.size()));
  for (size_t k = 0; k < functions.size(); ++k)
    for (const ordered_json& value : functions[k])
      all[k].push_back(value.is_null() ? std::nullopt : std::optional(json_number(value, "rewards", from)));
}

// With the first rank that could not.
void expect_answered(const std::vector<std::string>& failures) {
  for (size_t rank = 0; rank < failures.size(); ++rank)
    if (!failures[rank].empty()) throw StepAbandoned("rank " + std::to_string(rank) + ": " + failures[rank]);
}

}  // namespace

AnsweredPrompts answers_of_all(const DataParallel& parallel, const std::function<AnsweredPrompts()>& answer,
                               int64_t rows, int64_t vocab_size) {
  if (!parallel.several()) return answer();
  AnsweredPrompts own;
  std::string failure;
  try {
    own = answer();
  } catch (const StepAbandoned& error) {
    failure = error.what();
  }
  expect_answered(parallel.texts_of_all(failure));
  GenerationBatch batch;
  batch.completions = std::move(own.completions);
  const std::vector<std::string> batches = parallel.texts_of_all(generation_batch_text(batch)),
                                 rewards = parallel.texts_of_all(rewards_text(own.rewards));
  AnsweredPrompts all;
  for (size_t rank = 0; rank < batches.size(); ++rank) {
    const std::string from = "what rank " + std::to_string(rank) + " sent";
    GenerationBatch part = read_generation_batch(batches[rank], from, rows, vocab_size);
    std::move(part.completions.begin(), part.completions.end(), std::back_inserter(all.completions));
    append_rewards(all.rewards, rewards[rank], from);
  }
  return all;
}

}  // namespace lathe::train
