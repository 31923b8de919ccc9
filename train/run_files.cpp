#include "train/run_files.h"

#include "kernels/copy/copy.h"
#include "nn/model_directory.h"
#include "nn/weights/safetensors.h"

namespace lathe::train {

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
  nn::write_safetensors(output_dir / "model.safetensors", tensors);
  nn::write_model_config(model_directory, output_dir, model.dtype(), model.config().tie_word_embeddings);
  nn::copy_text_files(model_directory, output_dir);
}

}  // namespace lathe::train
