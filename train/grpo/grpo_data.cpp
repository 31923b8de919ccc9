#include "train/grpo/grpo_data.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "core/error.h"
#include "data/rows/sft_rows.h"
#include "data/shards/manifest.h"
#include "data/shards/row_kinds.h"
#include "train/dataset_shards.h"
#include "train/datasets.h"
#include "train/row_stream.h"

namespace lathe::train {
namespace {

void expect_column(const std::string& path, int64_t rows, int64_t without, const std::string& column,
                   std::optional<int64_t> first_line, std::vector<std::string>& warnings) {
  if (without == rows)
    throw ConfigError("reward_column", "no row of " + path + " has a column \"" + column +
                                           "\" to compare with; name the one that holds the answers");
  if (without > 0)
    warnings.push_back(path + ": " + std::to_string(without) + " rows without \"" + column + "\"" +
                       (first_line ? ", the first in line " + std::to_string(*first_line) : "") +
                       "; rewards that compare with it say nothing of them");
}

TrainingSet open_set(const std::string& key, const std::string& path, const GrpoConfig& config,
                     const text::ModelText& text, std::vector<std::string>& warnings) {
  TrainingSet set = open_shards(path, {key, "grpo", config.model, data::prompt_settings_json()}, text, warnings);
  if (!reads_column(config)) return set;
  const auto columns = data::read_shard_manifest(path).totals.columns;
  const auto found = columns.find(config.reward_column);
  expect_column(path, set.rows(), set.rows() - (found == columns.end() ? 0 : found->second), config.reward_column, {},
                warnings);
  return set;
}

TrainingSet load_set(const std::string& key, const std::string& path, const GrpoConfig& config,
                     const text::ModelText& text, std::vector<std::string>& warnings) {
  if (data::is_shard_folder(path)) return open_set(key, path, config, text, warnings);
  expect_file(key, path);
  const std::vector<data::PromptRow> rows =
      data::read_prompt_rows(path, *text.tokenizer, text.chat_template.get(), text.vocab_size);
  TrainingSet set;
  for (const data::PromptRow& row : rows) add_prompt(set, row);
  if (!reads_column(config)) return set;
  const auto lacks = [&](const data::PromptRow& row) { return !column_text(row, config.reward_column); };
  const auto first = std::find_if(rows.begin(), rows.end(), lacks);
  expect_column(path, set.rows(), std::count_if(rows.begin(), rows.end(), lacks), config.reward_column,
                first == rows.end() ? std::nullopt : std::optional(first->line), warnings);
  return set;
}

StreamedRowReader row_reader(int64_t most_tokens, const text::ModelText& text) {
  const auto reader = std::make_shared<HeldRowReader<data::PromptRowReader, int64_t>>(text, text.vocab_size);
  return [reader, most_tokens](std::string_view json, const std::string& file, int64_t line) {
    StreamedRow row;
    try {
      data::PromptRow prompt = reader->rows.read(json);
      prompt.file = file;
      prompt.line = line;
      if (std::ssize(prompt.ids) > most_tokens)
        throw Error("has a prompt of " + std::to_string(prompt.ids.size()) + " tokens, above max_prompt_length " +
                    std::to_string(most_tokens));
      row.text = data::prompt_text(prompt);
      std::vector<int32_t> labels(prompt.ids.size(), data::ignored_label);
      row.sequences.push_back({std::move(prompt.ids), std::move(labels)});
    } catch (const std::exception& error) {
      row.error = error.what();
    }
    return row;
  };
}

TrainingSet open_stream(const GrpoConfig& config, const text::ModelText& text, const DataParallel& parallel) {
  const int64_t updates = config.updates_per_generation() * config.num_iterations;
  RowStreamSettings settings;
  settings.input = stream_input(config.dataset);
  settings.read = row_reader(config.max_prompt_length, text);
  settings.longest_sequence = config.max_prompt_length;
  settings.rows_per_draw = config.prompts_per_generation();
  settings.rows_drawn = (config.max_steps + updates - 1) / updates * settings.rows_per_draw;
  settings.parallel = parallel;
  return TrainingSet::of_stream(std::make_shared<RowStream>(std::move(settings)));
}

TrainingSet load_sources(const GrpoConfig& config, const text::ModelText& text, std::vector<std::string>& warnings) {
  return load_datasets(config.dataset,
                       [&](const std::string& path) { return load_set("dataset", path, config, text, warnings); });
}

}  // namespace

void add_prompt(TrainingSet& prompts, const data::PromptRow& row) {
  prompts.add_row(row.ids, std::vector<int32_t>(row.ids.size(), data::ignored_label), data::prompt_text(row));
}

data::PromptRow prompt_at(const TrainingSet& prompts, int64_t row) {
  std::vector<int32_t> ids, labels;
  prompts.append_sequence(prompts.sequences_of_row(row).first, ids, labels);
  return data::prompt_row(std::move(ids), prompts.row_text(row), "row " + std::to_string(row + 1));
}

GrpoData load_grpo_data(const GrpoConfig& config, const text::ModelText& text, const DataParallel& parallel) {
  if (text.stop_token_ids.empty())
    throw ConfigError("eos_token", "neither the model's files nor its tokenizer say where an answer ends");
  GrpoData data;
  data.training = config.streaming ? open_stream(config, text, parallel) : load_sources(config, text, data.warnings);
  data.longest_prompt = data.training.longest_sequence();
  if (config.eval_dataset.empty()) return data;
  data.evaluation = load_set("eval_dataset", config.eval_dataset, config, text, data.warnings);
  data.longest_prompt = std::max(data.longest_prompt, data.evaluation->longest_sequence());
  return data;
}

}  // namespace lathe::train
