#include "train/grpo/shared_answers.h"

#include <iterator>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "train/objective.h"

namespace lathe::train {
namespace {

using nlohmann::ordered_json;

// What travels is JSON, in which numbers come back to the bit.
std::string judged_text(const AnsweredPrompts& answered) {
  ordered_json functions = ordered_json::array();
  for (const Rewards& of_function : answered.rewards) {
    ordered_json& values = functions.emplace_back(ordered_json::array());
    for (const auto& value : of_function) values.push_back(value ? ordered_json(*value) : ordered_json());
  }
  ordered_json completions = ordered_json::array();
  for (const std::string& text : answered.texts) completions.push_back({{"text", text}});
  return ordered_json{{"completions", completions}, {"rewards", functions}}.dump();
}

// To those of the processes before.
void append_judged(AnsweredPrompts& all, std::string_view judged, const std::string& from) {
  const ordered_json json = parse_json(judged, from);
  for (const ordered_json& completion : json_list(json, "completions", from))
    all.texts.push_back(json_text(completion, "text", from));
  if (all.texts.size() != all.completions.size())
    throw FormatError(from, -1, "there are not as many texts as completions");
  const ordered_json& functions = json_list(json, "rewards", from);
  all.rewards.resize(std::max(all.rewards.size(), functions.size()));
  for (size_t k = 0; k < functions.size(); ++k)
    for (const ordered_json& value : functions[k])
      all.rewards[k].push_back(value.is_null() ? std::nullopt : std::optional(json_number(value, "rewards", from)));
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
                                 judged = parallel.texts_of_all(judged_text(own));
  AnsweredPrompts all;
  for (size_t rank = 0; rank < batches.size(); ++rank) {
    const std::string from = "what rank " + std::to_string(rank) + " sent";
    GenerationBatch part = read_generation_batch(batches[rank], from, rows, vocab_size);
    std::move(part.completions.begin(), part.completions.end(), std::back_inserter(all.completions));
    append_judged(all, judged[rank], from);
  }
  return all;
}

}  // namespace lathe::train
