#include "train/dpo/dpo_data.h"

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "data/rows/preference_rows.h"
#include "data/shards/manifest.h"
#include "data/shards/row_kinds.h"
#include "train/dataset_shards.h"
#include "train/datasets.h"
#include "train/row_stream.h"

namespace lathe::train {
namespace {

constexpr int64_t sample_count = 4;

data::PreferenceOptions options_of(const DpoConfig& config, const text::ModelText& text) {
  data::PreferenceOptions options;
  options.max_length = config.max_length;
  options.truncation_mode =
      config.truncation_mode == "keep_end" ? data::TruncationMode::keep_end : data::TruncationMode::keep_start;
  options.vocab_size = text.vocab_size;
  return options;
}

TrainingSet set_of(const std::vector<data::PreferenceExample>& examples) {
  TrainingSet set;
  for (const auto& [chosen, rejected] : examples) {
    set.add_row(chosen.input_ids, chosen.labels);
    set.add_to_row(rejected.input_ids, rejected.labels);
  }
  return set;
}

TrainingSet load_set(const std::string& key, const std::string& path, const DpoConfig& config,
                     const text::ModelText& text, std::vector<std::string>& warnings) {
  const data::PreferenceOptions options = options_of(config, text);
  if (data::is_shard_folder(path))
    return open_shards(path, {key, "dpo", config.model, data::preference_settings_json(options)}, text, warnings);
  expect_file(key, path);
  const data::PreferenceRows rows =
      data::read_preference_rows(path, *text.tokenizer, text.chat_template.get(), options);
  for (const std::string& warning : rows.warnings) warnings.push_back(path + ": " + warning);
  if (rows.examples.empty())
    throw ConfigError(key, path + " holds nothing to learn from: line " + std::to_string(rows.dropped[0].line) + ": " +
                               rows.dropped[0].reason);
  return set_of(rows.examples);
}

StreamedRowReader row_reader(const data::PreferenceOptions& options, const text::ModelText& text) {
  const auto reader =
      std::make_shared<HeldRowReader<data::PreferenceRowReader, data::PreferenceOptions>>(text, options);
  return [reader](std::string_view json, const std::string&, int64_t) {
    data::PreparedPreference row = reader->rows.read(json);
    return StreamedRow{{std::move(row.example.chosen), std::move(row.example.rejected)},
                       "",
                       std::move(row.error),
                       std::move(row.dropped_because)};
  };
}

TrainingSet open_stream(const DpoConfig& config, const text::ModelText& text, const DataParallel& parallel) {
  RowStreamSettings settings;
  settings.input = stream_input(config.dataset);
  settings.read = row_reader(options_of(config, text), text);
  settings.longest_sequence = config.max_length;
  settings.sequences_per_row = 2;
  settings.parallel = parallel;
  settings.rows_per_draw = config.rows_per_step();
  settings.rows_drawn = config.max_steps * config.rows_per_step();
  return TrainingSet::of_stream(std::make_shared<RowStream>(std::move(settings)));
}

TrainingSet load_sources(const DpoConfig& config, const text::ModelText& text, std::vector<std::string>& warnings) {
  return load_datasets(config.dataset,
                       [&](const std::string& path) { return load_set("dataset", path, config, text, warnings); });
}

SampleRow sample_of(const TrainingSet& pairs, int64_t row, const data::Tokenizer& tokenizer) {
  const auto parts = [&](int64_t sequence) {
    std::vector<int32_t> ids, labels;
    pairs.append_sequence(sequence, ids, labels);
    const auto first =
        std::find_if(labels.begin(), labels.end(), [](int32_t label) { return label != data::ignored_label; });
    const auto split = static_cast<size_t>(first - labels.begin());
    return std::pair(tokenizer.decode(std::span(ids).subspan(0, split)),
                     tokenizer.decode(std::span(ids).subspan(split)));
  };
  const int64_t sequence = pairs.sequences_of_row(row).first;
  auto [prompt, chosen] = parts(sequence);
  return {std::move(prompt), std::move(chosen), "rejected: " + parts(sequence + 1).second};
}

}  // namespace

int64_t DpoData::longest_sequence() const {
  return std::max(training.longest_sequence(), evaluation ? evaluation->longest_sequence() : 0);
}

DpoData load_dpo_data(const DpoConfig& config, const text::ModelText& text, const DataParallel& parallel) {
  DpoData data;
  data.training = config.streaming ? open_stream(config, text, parallel) : load_sources(config, text, data.warnings);
  for (int64_t row = 0; row < std::min(data.training.rows(), sample_count); ++row)
    data.samples.push_back(sample_of(data.training, row, *text.tokenizer));
  if (!config.eval_dataset.empty())
    data.evaluation = load_set("eval_dataset", config.eval_dataset, config, text, data.warnings);
  return data;
}

std::vector<std::vector<int64_t>> cut_pairs(const TrainingSet& pairs, std::span<const int64_t> rows,
                                            int64_t rows_per_forward, int64_t max_tokens) {
  std::vector<std::vector<int64_t>> forwards;
  int64_t rows_in_batch = 0, tokens_in_last = 0;
  for (const int64_t row : rows) {
    const int64_t tokens = pairs.row_tokens(row);
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

}  // namespace lathe::train
