#include "train/settings/data_settings.h"

namespace lathe::train {

Fields data_fields(DataSettings& s, const std::string& rows, const std::string& metrics) {
  return {
      {"dataset", Group::model_and_data, "JSONL file (plain, .gz, .zst, or - for standard input): " + rows + " rows",
       Shapes::run, &s.dataset},
      {"eval_dataset", Group::model_and_data, "JSONL file to measure " + metrics + " on", Shapes::run, &s.eval_dataset},
  };
}

void check_data(const DataSettings& s, Complaints& wrong) {
  wrong.require(!s.dataset.empty(), "dataset", "is missing: a JSONL file of examples");
}

}  // namespace lathe::train
