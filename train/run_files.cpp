#include "train/run_files.h"

#include <fstream>
#include <sstream>

#include "core/atomic_write.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "nn/weights/safetensors.h"

namespace lathe::train {
namespace {

void copy_if_there(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::ifstream stream(from, std::ios::binary);
  if (!stream) return;
  std::ostringstream bytes;
  bytes << stream.rdbuf();
  write_file_atomically(to, bytes.str());
}

}  // namespace

void write_result(const std::filesystem::path& output_dir, const nn::Transformer& model, const Optimizer& optimizer,
                  const std::filesystem::path& model_directory) {
  if (model.has_adapter()) {
    nn::write_peft_adapter(output_dir, model.adapter());
    return;
  }
  nn::NamedTensors tensors;
  for (const nn::Parameter& parameter : optimizer.parameters())
    tensors.emplace_back(parameter.name, kernels::moved(parameter.leaf.value(), {}));
  nn::write_safetensors(output_dir / "model.safetensors", tensors);
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                           "special_tokens_map.json", "chat_template.jinja"})
    copy_if_there(model_directory / name, output_dir / name);
}

}  // namespace lathe::train
