#include "train/grpo/grpo_data.h"

#include <xxhash.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "data/readers/byte_stream.h"

namespace lathe::train {
namespace {

std::vector<data::PromptRow> load_rows(const std::string& key, const std::string& path, const GrpoConfig& config,
                                       const text::ModelText& text, std::vector<std::string>& warnings) {
  if (path != data::standard_input && !std::filesystem::is_regular_file(path))
    throw ConfigError(key, path + " is no file");
  std::vector<data::PromptRow> rows =
      data::read_prompt_rows(path, *text.tokenizer, text.chat_template.get(), text.vocab_size);
  if (!reads_column(config)) return rows;
  const auto lacks = [&](const data::PromptRow& row) { return !column_text(row, config.reward_column); };
  const auto without = std::count_if(rows.begin(), rows.end(), lacks);
  if (without == static_cast<std::ptrdiff_t>(rows.size()))
    throw ConfigError("reward_column", "no row of " + path + " has a column \"" + config.reward_column +
                                           "\" to compare with; name the one that holds the answers");
  if (without > 0)
    warnings.push_back(path + ": " + std::to_string(without) + " rows without \"" + config.reward_column +
                       "\", the first in line " + std::to_string(std::find_if(rows.begin(), rows.end(), lacks)->line) +
                       "; rewards that compare with it say nothing of them");
  return rows;
}

}  // namespace

uint64_t GrpoData::fingerprint() const {
  uint64_t hash = 0;
  for (const data::PromptRow& row : training) {
    hash = XXH64(row.ids.data(), row.ids.size() * sizeof(int32_t), hash);
    const std::string columns = row.columns.dump();
    hash = XXH64(columns.data(), columns.size(), hash);
  }
  return hash;
}

GrpoData load_grpo_data(const GrpoConfig& config, const text::ModelText& text) {
  if (text.stop_token_ids.empty())
    throw ConfigError("eos_token", "neither the model's files nor its tokenizer say where an answer ends");
  GrpoData data;
  data.training = load_rows("dataset", config.dataset, config, text, data.warnings);
  if (!config.eval_dataset.empty())
    data.evaluation = load_rows("eval_dataset", config.eval_dataset, config, text, data.warnings);
  for (const auto* rows : {&data.training, &data.evaluation})
    for (const data::PromptRow& row : *rows)
      data.longest_prompt = std::max(data.longest_prompt, static_cast<int64_t>(row.ids.size()));
  return data;
}

}  // namespace lathe::train
