// What a program's MODEL and --adapter arguments stand for: the transformer, its tokenizer and its chat template.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "nn/model_files.h"
#include "nn/transformer.h"

namespace lathe::cli {

// From a GGUF file's metadata or a directory's tokenizer.json.
std::shared_ptr<const data::Tokenizer> load_tokenizer(const nn::ModelFiles& files);

// An adapter must fit the model in every key; what its config says beside is printed as a warning.
void load_adapter_into(nn::Transformer& model, const std::filesystem::path& directory);

// Where generation ends: the model's EOS ids, the tokenizer's EOS and end-of-turn tokens.
std::vector<int32_t> stop_tokens(const nn::ModelConfig& config, const data::Tokenizer& tokenizer);

}  // namespace lathe::cli
