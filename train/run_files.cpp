#include "train/run_files.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/atomic_write.h"
#include "core/json.h"
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

// transformers' word.
const char* torch_name(DType dtype) {
  switch (dtype) {
    case DType::bf16: return "bfloat16";
    case DType::f64: return "float64";
    default: return "float32";
  }
}

// The model's own config.json, but for what the weights beside it are: their dtype, and whether one of them is the
// output projection.
void write_config(const std::filesystem::path& from, const std::filesystem::path& to, const nn::Transformer& model) {
  nlohmann::ordered_json config = read_json_file(from);
  const char* dtype = torch_name(model.dtype());
  // transformers 5 writes "dtype" and reads both; earlier ones know "torch_dtype" alone.
  if (config.contains("dtype")) config["dtype"] = dtype;
  if (config.contains("torch_dtype") || !config.contains("dtype")) config["torch_dtype"] = dtype;
  const bool tied = model.config().tie_word_embeddings;
  const auto said = config.find("tie_word_embeddings");
  if ((said != config.end() && *said == true) != tied) config["tie_word_embeddings"] = tied;
  write_file_atomically(to, config.dump(2) + "\n");
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
    tensors.emplace_back(parameter.name, parameter.stored());
  nn::write_safetensors(output_dir / "model.safetensors", tensors);
  write_config(model_directory / "config.json", output_dir / "config.json", model);
  for (const char* name : {"generation_config.json", "tokenizer.json", "tokenizer_config.json",
                           "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"})
    copy_if_there(model_directory / name, output_dir / name);
  const std::filesystem::path templates = "additional_chat_templates";
  if (!std::filesystem::is_directory(model_directory / templates)) return;
  std::filesystem::create_directories(output_dir / templates);
  for (const auto& entry : std::filesystem::directory_iterator(model_directory / templates))
    copy_if_there(entry.path(), output_dir / templates / entry.path().filename());
}

}  // namespace lathe::train
