// From files of rows to the pairs of a run: each row of a set has two sequences, the chosen one first.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/model_text.h"
#include "train/data_parallel.h"
#include "train/dpo/dpo_config.h"
#include "train/report.h"
#include "train/training_set.h"

namespace lathe::train {

struct DpoData {
  TrainingSet training;
  std::optional<TrainingSet> evaluation;
  std::vector<std::string> warnings;  // each one sentence: truncated and dropped rows
  std::vector<SampleRow> samples;     // a few rows of the training set, to look at

  int64_t longest_sequence() const;
};

// FormatError with file and line for a bad row, ConfigError where nothing is left to learn from or tokenizer and
// template do not fit.
// Several processes that share a stream call it alike.
DpoData load_dpo_data(const DpoConfig& config, const text::ModelText& text, const DataParallel& parallel = {});

// Cuts rows into forwards of at most `rows_per_forward` rows and max_tokens tokens (0: no limit; a longer pair runs
// alone). A pair is never parted.
std::vector<std::vector<int64_t>> cut_pairs(const TrainingSet& pairs, std::span<const int64_t> rows,
                                            int64_t rows_per_forward, int64_t max_tokens);

}  // namespace lathe::train
