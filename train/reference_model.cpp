#include "train/reference_model.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "nn/model_files.h"
#include "nn/weights/safetensors.h"

namespace lathe::train {
namespace {

constexpr const char* file_name = "reference.safetensors";

}  // namespace

ReferenceModel::ReferenceModel(const nn::Transformer& trained, const RunConfig& config, FollowsTheModel follows) {
  const nn::ModelFiles files = nn::open_model_files(config.model);
  nn::TransformerOptions options;
  options.dtype = trained.dtype();
  options.device = trained.device();
  options.max_positions = trained.max_positions();
  options.quantized_linears = nn::resolved_quantization(files, config.quantization());
  options.weights = follows == FollowsTheModel::yes ? nn::WeightMode::trainable : nn::WeightMode::frozen;
  model_ = std::make_unique<nn::Transformer>(files.config, *files.weights, options);
  if (!config.adapter.empty()) model_->load_adapter(nn::read_peft_adapter(config.adapter));
  if (follows == FollowsTheModel::yes) weights_ = model_->trainable_parameters();
}

void ReferenceModel::mix(nn::Transformer& trained, double alpha) {
  const std::vector<nn::Parameter> from = trained.trainable_parameters();
  for (size_t i = 0; i < weights_.size(); ++i) {
    const Tensor& own = weights_[i].master;
    kernels::scale(own, own, 1 - alpha);
    kernels::add(own, own, from[i].master, alpha);
    weights_[i].refresh();
  }
}

void ReferenceModel::save(const std::filesystem::path& folder) const {
  nn::NamedTensors tensors;
  for (const nn::Parameter& weight : weights_) tensors.emplace_back(weight.name, kernels::moved(weight.master, {}));
  nn::write_safetensors(folder / file_name, tensors);
}

void ReferenceModel::load(const std::filesystem::path& folder) {
  const auto file = nn::SafetensorsFile::open(folder / file_name);
  for (nn::Parameter& weight : weights_) {
    const Tensor saved = file->tensor(weight.name);
    if (saved.shape() != weight.master.shape() || saved.dtype() != weight.master.dtype())
      throw FormatError(file->path().string(), -1,
                        weight.name + ": expected " + describe(weight.master) + ", found " + describe(saved));
    kernels::copy(weight.master, saved);
    weight.refresh();
  }
}

void ReferenceModel::share(const DataParallel& parallel) {
  for (nn::Parameter& weight : weights_) {
    parallel.from_main_process(weight.master);
    weight.refresh();
  }
}

bool trains_whole_weights(nn::Transformer& model) {
  const std::vector<nn::Parameter> parameters = model.trainable_parameters();
  return std::any_of(parameters.begin(), parameters.end(),
                     [](const nn::Parameter& parameter) { return parameter.name.find(".lora_") == std::string::npos; });
}

}  // namespace lathe::train
