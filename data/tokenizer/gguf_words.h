// GGUF's tokenizers "t5" (Unigram) and "bert" (WordPiece), as tokenizer.json has them.
#pragma once

#include <string>
#include <string_view>

#include "data/tokenizer/parts.h"

namespace lathe::data {

// What stands for a space, or in front of a word.
inline constexpr std::string_view space_mark = "▁";

// A token of "bert" as WordPiece spells it. GGUF has ▁ in front of what begins a word, in place of ## in front of what
// goes on with one; control tokens are the same.
std::string word_piece_of(const TokenizerMetadata& metadata, size_t id);

// Set the model and all that comes before and behind it, in parts that have a vocabulary and ids.
void set_unigram(const TokenizerMetadata& metadata, const std::string& file, Tokenizer::Parts& parts);
void set_word_piece(const TokenizerMetadata& metadata, const std::string& file, Tokenizer::Parts& parts);

}  // namespace lathe::data
