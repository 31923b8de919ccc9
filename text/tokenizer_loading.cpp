// From a model's files to its tokenizer.
#include <cmath>
#include <limits>

#include "core/error.h"
#include "text/model_text.h"

namespace lathe::text {
namespace {

// A list of numbers in the type that the tokenizer has them in; empty where the file has no such key.
template <class Out, class In>
std::vector<Out> numbers(const nn::GgufFile& file, const std::string& key) {
  std::vector<Out> result;
  for (const In value : file.get_optional<std::vector<In>>(key).value_or(std::vector<In>{})) {
    if (std::isnan(static_cast<double>(value)) ||
        std::abs(static_cast<double>(value)) > std::numeric_limits<Out>::max())
      throw FormatError(file.path().string(), -1, key + ": " + std::to_string(value) + " is out of range");
    result.push_back(static_cast<Out>(value));
  }
  return result;
}

std::string bytes(const nn::GgufFile& file, const std::string& key) {
  std::string result;
  for (const uint8_t byte : numbers<uint8_t, int64_t>(file, key)) result += static_cast<char>(byte);
  return result;
}

}  // namespace

data::TokenizerMetadata tokenizer_metadata_of(const nn::GgufFile& file) {
  const auto id = [&file](const char* name) {
    return file.get_optional<int64_t>("tokenizer.ggml." + std::string(name) + "_token_id");
  };
  data::TokenizerMetadata metadata;
  metadata.model = file.get<std::string>("tokenizer.ggml.model");
  metadata.pre = file.get_optional<std::string>("tokenizer.ggml.pre").value_or("");
  metadata.tokens = file.get<std::vector<std::string>>("tokenizer.ggml.tokens");
  metadata.scores = numbers<float, double>(file, "tokenizer.ggml.scores");
  metadata.token_types = numbers<int32_t, int64_t>(file, "tokenizer.ggml.token_type");
  metadata.merges =
      file.get_optional<std::vector<std::string>>("tokenizer.ggml.merges").value_or(std::vector<std::string>{});
  metadata.bos_id = file.contains("tokenizer.ggml.bos_token_id") ? id("bos") : id("cls");  // BERT's, once
  metadata.eos_id = id("eos");
  metadata.eot_id = id("eot");
  metadata.eom_id = id("eom");
  metadata.unknown_id = id("unknown");
  metadata.padding_id = id("padding");
  metadata.separator_id = id("seperator");  // as GGUF spells it
  metadata.add_bos = file.get_optional<bool>("tokenizer.ggml.add_bos_token");
  metadata.add_eos = file.get_optional<bool>("tokenizer.ggml.add_eos_token");
  metadata.add_space_prefix = file.get_optional<bool>("tokenizer.ggml.add_space_prefix");
  metadata.remove_extra_whitespaces = file.get_optional<bool>("tokenizer.ggml.remove_extra_whitespaces");
  metadata.precompiled_charsmap = bytes(file, "tokenizer.ggml.precompiled_charsmap");
  constexpr std::string_view key = "tokenizer.chat_template";
  for (const auto& [name, value] : file.metadata()) {
    if (!name.starts_with(key) || !std::holds_alternative<std::string>(value)) continue;
    // "tokenizer.chat_template", "tokenizer.chat_template.tool_use"
    const std::string_view rest = std::string_view(name).substr(key.size());
    if (rest.empty() || (rest.size() > 1 && rest[0] == '.'))
      metadata.chat_templates[rest.empty() ? "default" : std::string(rest.substr(1))] = std::get<std::string>(value);
  }
  return metadata;
}

std::shared_ptr<const data::Tokenizer> load_tokenizer(const nn::ModelFiles& files) {
  if (files.gguf) return data::Tokenizer::from_metadata(tokenizer_metadata_of(*files.gguf), files.path.string());
  return data::Tokenizer::from_directory(files.path);
}

std::shared_ptr<const data::Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return data::Tokenizer::from_directory(path);
  return data::Tokenizer::from_metadata(tokenizer_metadata_of(*nn::GgufFile::open(path)), path.string());
}

}  // namespace lathe::text
