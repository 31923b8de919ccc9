// What stands beside tokenizer.json: tokenizer_config.json, special_tokens_map.json, added_tokens.json and the chat
// templates, joined as transformers joins them.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/vocabulary.h"

namespace lathe::data {

struct TokenizerConfig {
  // Every added token, those of tokenizer.json first: what other files say of a token counts, and the tokens that are
  // named (bos_token, …, additional_special_tokens, mask_token, image_token) are special.
  std::vector<AddedToken> added_tokens;
  std::optional<std::string> bos, eos, unknown, padding;  // their text
  std::map<std::string, std::string> chat_templates;      // by name; "default" is the one without a name
};

// `vocabulary` is the model's own, `added` tokenizer.json's. A token without an id gets the next free one, as in the
// tokenizers library. FormatError names the file and the key.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& directory, const Vocabulary& vocabulary,
                                      std::vector<AddedToken> added);

}  // namespace lathe::data
