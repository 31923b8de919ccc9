// The datasets that a run names (train/settings/data_settings.h), as one set.
#pragma once

#include <functional>
#include <string>

#include "train/training_set.h"

namespace lathe::train {

// Each source by `load`, which gets its path; several are mixed by their weights.
TrainingSet load_datasets(const std::string& dataset, const std::function<TrainingSet(const std::string& path)>& load);

}  // namespace lathe::train
