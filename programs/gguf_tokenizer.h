// Where the tokenizer of a model lies: in the GGUF file's metadata or beside the safetensors. nn reads the file and
// data builds the tokenizer; only what stands above both can join them.
#pragma once

#include <filesystem>
#include <memory>

#include "data/tokenizer/tokenizer.h"
#include "nn/weights/gguf.h"

namespace lathe {

inline data::TokenizerMetadata tokenizer_metadata(const nn::GgufFile& file) {
  const auto strings = [&](const char* key) {
    return file.get_optional<std::vector<std::string>>(key).value_or(std::vector<std::string>{});
  };
  data::TokenizerMetadata metadata;
  metadata.model = file.get<std::string>("tokenizer.ggml.model");
  metadata.pre = file.get_optional<std::string>("tokenizer.ggml.pre").value_or("");
  metadata.tokens = strings("tokenizer.ggml.tokens");
  metadata.merges = strings("tokenizer.ggml.merges");
  for (const double score : file.get_optional<std::vector<double>>("tokenizer.ggml.scores").value_or(std::vector<double>{})) {
    metadata.scores.push_back(static_cast<float>(score));
  }
  for (const int64_t type : file.get_optional<std::vector<int64_t>>("tokenizer.ggml.token_type").value_or(std::vector<int64_t>{})) {
    metadata.token_types.push_back(static_cast<int32_t>(type));
  }
  metadata.bos_id = file.get_optional<int64_t>("tokenizer.ggml.bos_token_id");
  metadata.eos_id = file.get_optional<int64_t>("tokenizer.ggml.eos_token_id");
  metadata.eot_id = file.get_optional<int64_t>("tokenizer.ggml.eot_token_id");
  metadata.unknown_id = file.get_optional<int64_t>("tokenizer.ggml.unknown_token_id");
  metadata.padding_id = file.get_optional<int64_t>("tokenizer.ggml.padding_token_id");
  metadata.add_bos = file.get_optional<bool>("tokenizer.ggml.add_bos_token");
  metadata.add_eos = file.get_optional<bool>("tokenizer.ggml.add_eos_token");
  metadata.add_space_prefix = file.get_optional<bool>("tokenizer.ggml.add_space_prefix");
  metadata.chat_template = file.get_optional<std::string>("tokenizer.chat_template");
  return metadata;
}

// `model` is a Hugging Face directory or a .gguf file.
inline std::shared_ptr<const data::Tokenizer> load_tokenizer(const std::filesystem::path& model) {
  if (std::filesystem::is_directory(model)) return data::Tokenizer::from_directory(model);
  return data::Tokenizer::from_metadata(tokenizer_metadata(*nn::GgufFile::open(model)), model.string());
}

}  // namespace lathe
