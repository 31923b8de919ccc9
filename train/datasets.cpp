#include "train/datasets.h"

#include "train/settings/data_settings.h"

namespace lathe::train {

TrainingSet load_datasets(const std::string& dataset, const std::function<TrainingSet(const std::string& path)>& load) {
  std::vector<WeightedSet> sources;
  for (const DatasetSource& source : dataset_sources(dataset))
    sources.push_back({source.name, load(source.path), source.weight});
  return sources.size() == 1 ? std::move(sources[0].rows) : TrainingSet::mixed(sources);
}

}  // namespace lathe::train
