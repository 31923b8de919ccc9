// How a byte-level tokenizer of a GGUF file cuts a text into words: tokenizer.ggml.pre has llama.cpp's name for it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "data/tokenizer/pre_tokenizer.h"

namespace lathe::data {

struct GgufPreTokenizer {
  PreTokenizers pre_tokenizers;  // as in the tokenizer.json that the name stands for, not as llama.cpp comes near it
  bool ignore_merges = false;
  bool nfc = false;
  bool adds_bos = false;  // where the file does not say
};

// ConfigError, with the names that are known, for one that is not.
GgufPreTokenizer gguf_pre_tokenizer(const std::string& name, const std::string& file);

// The same as tokenizer.json's "pre_tokenizer".
nlohmann::ordered_json pre_tokenizer_json(const std::string& name, const std::string& file);
// The name of what cuts as this "pre_tokenizer" of a tokenizer.json does, where there is one.
std::optional<std::string> gguf_pre_tokenizer_name(const nlohmann::ordered_json& pre_tokenizer, bool nfc,
                                                   bool ignore_merges);

}  // namespace lathe::data
