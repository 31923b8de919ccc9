// The tokenizer of a GGUF file as tokenizer.json, and the other way round.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer_metadata.h"

namespace lathe::data {

// The files of a Hugging Face directory by their names: tokenizer.json and tokenizer_config.json, as texts.
struct TokenizerFiles {
  std::string tokenizer_json, tokenizer_config_json;
};

// What transformers loads as the tokenizer that this metadata describes. ConfigError for a kind that is not known.
TokenizerFiles tokenizer_files_of(const TokenizerMetadata& metadata, const std::string& file);

// What llama.cpp needs of a directory's tokenizer.json; ids from the tokenizer's own size to `vocab_size` become
// tokens that are never used. Byte-level BPE whose cuts GGUF has a name for, and SentencePiece's BPE. ConfigError for
// any other, naming the part.
TokenizerMetadata tokenizer_metadata_of(const std::filesystem::path& directory, const Tokenizer& tokenizer,
                                        int64_t vocab_size);

}  // namespace lathe::data
