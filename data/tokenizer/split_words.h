// How a Split pre-tokeniser makes words of its pattern's matches and of what lies between them.
#pragma once

#include <string_view>
#include <vector>

#include "data/tokenizer/pre_tokenizer.h"

namespace lathe::data {

// Appends the words that `step`, a Split, makes of one word of the text.
void split_word(const PreTokenizer& step, std::string_view text, TextPiece word, std::vector<TextPiece>& words);

}  // namespace lathe::data
