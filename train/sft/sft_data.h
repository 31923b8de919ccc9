// From files of rows to the training and evaluation sets of a run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/model_text.h"
#include "train/data_parallel.h"
#include "train/report.h"
#include "train/sft/sft_config.h"
#include "train/training_set.h"

namespace lathe::train {

struct SftData {
  TrainingSet training;
  std::optional<TrainingSet> evaluation;  // never packed
  std::vector<std::string> warnings;      // each one sentence: truncated and dropped rows
  std::vector<SampleRow> samples;         // a few rows of the training set, to look at
};

// FormatError with file and line for a bad row, ConfigError where nothing is left to learn from or options, tokenizer
// and template do not fit.
// Several processes that share a stream call it alike.
SftData load_sft_data(const SftConfig& config, const text::ModelText& text, const DataParallel& parallel = {});

}  // namespace lathe::train
