// From files of prompts to what a run draws from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/rows/prompt_rows.h"
#include "text/model_text.h"
#include "train/grpo/grpo_config.h"

namespace lathe::train {

struct GrpoData {
  std::vector<data::PromptRow> training, evaluation;
  int64_t longest_prompt = 0;  // tokens, of both
  std::vector<std::string> warnings;
  uint64_t fingerprint() const;  // of the training prompts, their columns and their order
};

// FormatError with file and line for a bad row; ConfigError where there is no row, or a reward's column that no row
// has.
GrpoData load_grpo_data(const GrpoConfig& config, const text::ModelText& text);

}  // namespace lathe::train
