// A second model beside the one that is trained: what preferences and rewards are measured against where that one's own
// weights change (with an adapter the reference is the model without it, and needs none).
#pragma once

#include <filesystem>
#include <memory>

#include "nn/transformer.h"
#include "train/data_parallel.h"
#include "train/settings/run_config.h"

namespace lathe::train {

// Whether its weights are to change: then it has f32 masters beside those of the forward.
enum class FollowsTheModel { no, yes };

class ReferenceModel {
 public:
  // The files of the config, with the adapter that is trained further where there is one, in the dtype, on the device
  // and with the positions of `trained`.
  ReferenceModel(const nn::Transformer& trained, const RunConfig& config, FollowsTheModel follows);

  const nn::Transformer& model() const { return *model_; }

  // For a reference that follows (TR-DPO, Gorbatovski et al. 2024): every weight becomes alpha · the model's +
  // (1 − alpha) · its own, in f32.
  void mix(nn::Transformer& trained, double alpha);
  void save(const std::filesystem::path& folder) const;
  // FormatError for a file that does not fit.
  void load(const std::filesystem::path& folder);
  // What load() has found, from the main process.
  void share(const DataParallel& parallel);

 private:
  std::unique_ptr<nn::Transformer> model_;
  std::vector<nn::Parameter> weights_;  // of one that follows
};

// Every weight, or an adapter that brings weights of its own (modules_to_save): they cannot be off in a batch.
bool trains_whole_weights(nn::Transformer& model);

}  // namespace lathe::train
