// The text side of a model on disk: what turns messages into its tokens and tokens into text. Here the model's files
// (nn) and the tokenizers and templates (data) meet; neither knows the other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "data/chat_template/chat_template.h"
#include "data/tokenizer/tokenizer.h"
#include "nn/model_files.h"

namespace lathe::text {

struct ModelText {
  std::shared_ptr<const data::Tokenizer> tokenizer;
  std::shared_ptr<const data::ChatTemplate> chat_template;  // null when the model has none
  std::vector<int32_t> stop_token_ids;
  int64_t vocab_size = 0;  // rows of the model's embedding; a tokenizer that is not the model's may have more tokens

  // The ids of a conversation up to where the assistant answers. ConfigError when the model has no template.
  std::vector<int32_t> encode_chat(const nlohmann::ordered_json& messages) const;
};

// FormatError or ConfigError for a tokenizer or a template that cannot be understood.
ModelText load_model_text(const nn::ModelFiles& files);

// The tokenizer alone: from a GGUF file's metadata or a directory's tokenizer.json. By a path (nn::resolve_model_path),
// nothing else of the model is asked for.
std::shared_ptr<const data::Tokenizer> load_tokenizer(const nn::ModelFiles& files);
std::shared_ptr<const data::Tokenizer> load_tokenizer(const std::filesystem::path& path);

// What a GGUF file says of its tokenizer.
data::TokenizerMetadata tokenizer_metadata_of(const nn::GgufFile& file);

// Where generation ends, ascending: the EOS ids of config.json and generation_config.json, the tokenizer's EOS, end of
// turn and end of message, and the control tokens that chat families end their turns with, as far as the vocabulary has
// them.
std::vector<int32_t> stop_tokens(const nn::ModelFiles& files, const data::Tokenizer& tokenizer);

}  // namespace lathe::text
