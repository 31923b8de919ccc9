// A Hugging Face model directory written from another one: what goes along with weights that were trained or merged.
#pragma once

#include <filesystem>
#include <optional>

#include "core/dtype.h"

namespace lathe::nn {

// The config.json of `from` in `to`, but for what the weights beside it are: their dtype where one is given, whether
// one of them is the output projection, and that they are no codes.
void write_model_config(const std::filesystem::path& from, const std::filesystem::path& to, std::optional<DType> dtype,
                        bool tie_word_embeddings);

// generation_config.json, the tokenizer's files and the chat templates, as far as they are there. Each file appears
// whole or not at all.
void copy_text_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace lathe::nn
