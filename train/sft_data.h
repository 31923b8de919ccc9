// From files of rows to the training and evaluation sets of a run.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_template/chat_template.h"
#include "data/tokenizer/tokenizer.h"
#include "train/training_config.h"
#include "train/training_set.h"

namespace lathe::train {

struct SampleRow {
  std::string context, learnt;  // decoded: what the model reads, and what it is to say
};

struct SftData {
  TrainingSet training;
  std::optional<TrainingSet> evaluation;  // never packed
  std::vector<std::string> warnings;      // each one sentence: truncated and dropped rows
  std::vector<SampleRow> samples;         // a few rows of the training set, to look at
};

// `chat_template` may be null where no row is a chat. FormatError with file and line for a bad row, ConfigError where
// nothing is left to learn from or options and tokenizer do not fit.
SftData load_sft_data(const SftConfig& config, const data::Tokenizer& tokenizer,
                      const data::ChatTemplate* chat_template);

}  // namespace lathe::train
