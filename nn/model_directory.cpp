#include "nn/model_directory.h"

#include <fstream>
#include <sstream>

#include "core/atomic_write.h"
#include "core/json.h"
#include "core/json_value.h"
#include "nn/families/family.h"
#include "nn/families/text_config.h"

namespace lathe::nn {
namespace {

void copy_if_there(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::ifstream stream(from, std::ios::binary);
  if (!stream) return;
  std::ostringstream bytes;
  bytes << stream.rdbuf();
  write_file_atomically(to, bytes.str());
}

// Of a multimodal model its text model alone is what is written beside this.
nlohmann::ordered_json of_text_alone(const nlohmann::ordered_json& config) {
  nlohmann::ordered_json text = text_config(config);
  if (is_multimodal(config)) text["architectures"] = {family_named(text.value("model_type", "")).hf_class};
  return text;
}

// transformers' word.
const char* torch_name(DType dtype) {
  switch (dtype) {
    case DType::bf16: return "bfloat16";
    case DType::f16: return "float16";
    case DType::f64: return "float64";
    default: return "float32";
  }
}

}  // namespace

void write_model_config(const std::filesystem::path& from, const std::filesystem::path& to, std::optional<DType> dtype,
                        bool tie_word_embeddings) {
  nlohmann::ordered_json config = of_text_alone(read_json_file(from / "config.json"));
  for (const char* key : {"quantization_config", "compression_config"}) config.erase(key);
  if (dtype) {
    // transformers 5 writes "dtype" and reads both; earlier ones know "torch_dtype" alone.
    if (config.contains("dtype")) config["dtype"] = torch_name(*dtype);
    if (config.contains("torch_dtype") || !config.contains("dtype")) config["torch_dtype"] = torch_name(*dtype);
  }
  config["tie_word_embeddings"] = tie_word_embeddings;  // families differ in what a missing one means
  write_file_atomically(to / "config.json", config.dump(2) + "\n");
}

void copy_text_files(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const char* name : {"generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                           "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
                           "chat_template.jinja", "chat_template.json"})
    copy_if_there(from / name, to / name);
  const std::filesystem::path templates = "additional_chat_templates";
  if (!std::filesystem::is_directory(from / templates)) return;
  std::filesystem::create_directories(to / templates);
  for (const auto& entry : std::filesystem::directory_iterator(from / templates))
    copy_if_there(entry.path(), to / templates / entry.path().filename());
}

}  // namespace lathe::nn
