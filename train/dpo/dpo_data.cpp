#include "train/dpo/dpo_data.h"

#include <algorithm>
#include <filesystem>
#include <functional>

#include "core/error.h"
#include "data/readers/byte_stream.h"
#include "data/rows/preference_rows.h"

namespace lathe::train {
namespace {

constexpr size_t sample_count = 4;

int64_t tokens_of(const TrainingSet& set, int64_t row) {
  const auto [first, last] = set.sequences_of_row(row);
  int64_t tokens = 0;
  for (int64_t sequence = first; sequence < last; ++sequence) tokens += std::ssize(set.ids(sequence));
  return tokens;
}

data::PreferenceRows read_rows(const std::string& key, const std::string& path, const DpoConfig& config,
                               const text::ModelText& text, std::vector<std::string>& warnings) {
  if (path != data::standard_input && !std::filesystem::is_regular_file(path))
    throw ConfigError(key, path + " is no file");
  data::PreferenceOptions options;
  options.max_length = config.max_length;
  options.truncation_mode =
      config.truncation_mode == "keep_end" ? data::TruncationMode::keep_end : data::TruncationMode::keep_start;
  options.vocab_size = text.vocab_size;
  data::PreferenceRows rows = data::read_preference_rows(path, *text.tokenizer, text.chat_template.get(), options);
  for (const std::string& warning : rows.warnings) warnings.push_back(path + ": " + warning);
  if (rows.examples.empty())
    throw ConfigError(key, path + " holds nothing to learn from: line " + std::to_string(rows.dropped[0].line) + ": " +
                               rows.dropped[0].reason);
  return rows;
}

TrainingSet set_of(const std::vector<data::PreferenceExample>& examples) {
  TrainingSet set;
  for (const auto& [chosen, rejected] : examples) {
    set.add_row(chosen.input_ids, chosen.labels);
    set.add_to_row(rejected.input_ids, rejected.labels);
  }
  return set;
}

SampleRow sample_of(const data::PreferenceExample& example, const data::Tokenizer& tokenizer) {
  const auto parts = [&](const data::SftExample& sequence) {
    const auto first = std::find_if(sequence.labels.begin(), sequence.labels.end(),
                                    [](int32_t label) { return label != data::ignored_label; });
    const auto split = static_cast<size_t>(first - sequence.labels.begin());
    const std::span<const int32_t> ids(sequence.input_ids);
    return std::pair(tokenizer.decode(ids.subspan(0, split)), tokenizer.decode(ids.subspan(split)));
  };
  auto [prompt, chosen] = parts(example.chosen);
  return {std::move(prompt), std::move(chosen), "rejected: " + parts(example.rejected).second};
}

}  // namespace

int64_t DpoData::longest_sequence() const {
  return std::max(training.longest_sequence(), evaluation ? evaluation->longest_sequence() : 0);
}

DpoData load_dpo_data(const DpoConfig& config, const text::ModelText& text) {
  DpoData data;
  const data::PreferenceRows rows = read_rows("dataset", config.dataset, config, text, data.warnings);
  data.training = set_of(rows.examples);
  for (size_t i = 0; i < std::min(rows.examples.size(), sample_count); ++i)
    data.samples.push_back(sample_of(rows.examples[i], *text.tokenizer));
  if (!config.eval_dataset.empty())
    data.evaluation = set_of(read_rows("eval_dataset", config.eval_dataset, config, text, data.warnings).examples);
  return data;
}

std::vector<std::vector<int64_t>> cut_pairs(const TrainingSet& pairs, std::span<const int64_t> rows,
                                            int64_t rows_per_forward, int64_t max_tokens) {
  std::vector<std::vector<int64_t>> forwards;
  int64_t rows_in_batch = 0, tokens_in_last = 0;
  for (const int64_t row : rows) {
    const int64_t tokens = tokens_of(pairs, row);
    const bool full = max_tokens > 0 && tokens_in_last + tokens > max_tokens;
    if (rows_in_batch == rows_per_forward) rows_in_batch = 0;
    if (rows_in_batch == 0 || full) {
      forwards.emplace_back();
      tokens_in_last = 0;
    }
    forwards.back().push_back(row);
    tokens_in_last += tokens;
    ++rows_in_batch;
  }
  return forwards;
}

int64_t largest_pair_forward(const TrainingSet& pairs, const TrainingSettings& settings) {
  std::vector<int64_t> tokens;
  for (int64_t row = 0; row < pairs.rows(); ++row) tokens.push_back(tokens_of(pairs, row));
  std::sort(tokens.begin(), tokens.end(), std::greater<>());
  int64_t batch = 0;
  for (size_t i = 0; i < std::min(tokens.size(), static_cast<size_t>(settings.per_device_train_batch_size)); ++i)
    batch += tokens[i];
  if (settings.max_tokens_per_forward == 0) return batch;
  return std::min(batch, std::max(settings.max_tokens_per_forward, tokens[0]));
}

}  // namespace lathe::train
