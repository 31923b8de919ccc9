// Folders of shards as the rows of a run, or the reason why they cannot be.
#pragma once

#include <string>
#include <vector>

#include "core/json_value.h"
#include "text/model_text.h"
#include "train/training_set.h"

namespace lathe::train {

// What the run would make of raw rows: shards must have been made with the same.
struct ExpectedShards {
  std::string key;                  // "dataset" or "eval_dataset"
  std::string command;              // "sft"
  std::string model;                // its name, for messages
  nlohmann::ordered_json settings;  // data/shards/row_kinds.h
  bool refuse_truncated = false;    // too_long is error
};

// A run on the set has the bits of one on the rows that the shards were made of. ConfigError for shards of another kind
// of rows, tokenizer, template or settings; another max_length is fine where no row was cut and none is longer. Shards
// of rows that are not packed are packed while training (train/packed_rows.h) where the settings ask for it.
TrainingSet open_shards(const std::string& path, const ExpectedShards& expected, const text::ModelText& text,
                        std::vector<std::string>& warnings);

// ConfigError (key) where the path is neither a file (or pipe, or -) nor a folder of rows.
void expect_file(const std::string& key, const std::string& path);

}  // namespace lathe::train
