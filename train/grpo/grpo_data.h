// From files of prompts to what a run draws from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/rows/prompt_rows.h"
#include "text/model_text.h"
#include "train/data_parallel.h"
#include "train/grpo/grpo_config.h"
#include "train/training_set.h"

namespace lathe::train {

struct GrpoData {
  TrainingSet training;  // each row's text is what prompt_at() reads
  std::optional<TrainingSet> evaluation;
  int64_t longest_prompt = 0;  // tokens, of both
  std::vector<std::string> warnings;
};

void add_prompt(TrainingSet& prompts, const data::PromptRow& row);
// FormatError where a shard is not what was written.
data::PromptRow prompt_at(const TrainingSet& prompts, int64_t row);

// FormatError with file and line for a bad row; ConfigError where there is no row, or a reward's column that no row
// has.
GrpoData load_grpo_data(const GrpoConfig& config, const text::ModelText& text, const DataParallel& parallel = {});

}  // namespace lathe::train
