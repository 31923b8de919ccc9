// Files of rows: what methods that learn from a dataset share. What the rows hold is a method's own.
#pragma once

#include <string>

#include "train/settings/field.h"

namespace lathe::train {

struct DataSettings {
  std::string dataset, eval_dataset;
};

// `rows` and `metrics` complete the help: the kinds of rows that the method takes, and what it measures.
Fields data_fields(DataSettings& settings, const std::string& rows, const std::string& metrics);
void check_data(const DataSettings& settings, Complaints& wrong);

}  // namespace lathe::train
