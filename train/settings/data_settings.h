// Files of rows: what methods that learn from a dataset share. What the rows hold is a method's own.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/settings/field.h"

namespace lathe::train {

struct DataSettings {
  std::string dataset;  // one source, or several with commas between them (dataset_sources)
  std::string eval_dataset;
};

// One of the sources that a run learns from: "rows.jsonl", or "rows.jsonl:0.7".
struct DatasetSource {
  std::string path;
  std::optional<double> weight;  // its share of the rows drawn
  std::string name;              // the last part of the path, or all of it where another source has that part, too
};

// A path that exists as it stands is one source, whatever characters it has. ConfigError (dataset) for weights that are
// no positive numbers, or where only some sources have one.
std::vector<DatasetSource> dataset_sources(const std::string& dataset);
std::string dataset_text(const std::vector<DatasetSource>& sources);
// For a person: "rows.jsonl", or "a.jsonl × 0.7, b.jsonl × 0.3".
std::string dataset_title(const std::string& dataset);

// `rows` and `metrics` complete the help: the kinds of rows that the method takes, and what it measures.
Fields data_fields(DataSettings& settings, const std::string& rows, const std::string& metrics);
// A dry run may leave the dataset out: its plan takes rows to be as long as they may be.
void check_data(const DataSettings& settings, bool dry_run, Complaints& wrong);

}  // namespace lathe::train
