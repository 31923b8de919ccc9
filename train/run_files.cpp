#include "train/run_files.h"

#include "kernels/copy/copy.h"
#include "nn/model_directory.h"
#include "nn/weights/safetensors.h"
#include "nn/weights/stacked_experts.h"

namespace lathe::train {
namespace {

// As transformers reads them, in the model's dtype.
nn::NamedTensors in_directory_form(nn::NamedTensors tensors, const nn::Transformer& model) {
  if (model.config().experts.stacked == nn::StackedExperts::none) return tensors;
  const auto apart = nn::weights_of(tensors);
  const auto stacked = nn::stack_experts(*apart, model.config());
  nn::NamedTensors joined;
  for (const nn::WeightInfo& info : stacked->weights())
    joined.emplace_back(info.name, nn::read_weight(*stacked, info, model.dtype()));
  return joined;
}

}  // namespace

void write_result(const std::filesystem::path& output_dir, const nn::Transformer& model, const Optimizer& optimizer,
                  const std::filesystem::path& model_directory) {
  if (model.has_adapter()) {
    nn::PeftAdapter adapter = model.adapter();
    for (auto& [module, weight] : adapter.saved) weight = kernels::cast(weight, model.dtype());  // as PEFT saves them
    nn::write_peft_adapter(output_dir, adapter);
    return;
  }
  nn::NamedTensors tensors;
  for (const nn::Parameter& parameter : optimizer.parameters())
    tensors.emplace_back(parameter.name, parameter.stored());
  for (auto& [name, constant] : model.constants()) tensors.emplace_back(name, kernels::moved(constant, {}));
  nn::write_safetensors(output_dir / "model.safetensors", in_directory_form(std::move(tensors), model));
  nn::write_model_config(model_directory, output_dir, model.dtype(), model.config().tie_word_embeddings);
  nn::copy_text_files(model_directory, output_dir);
}

}  // namespace lathe::train
