// WordPiece (Wu et al. 2016), as BERT reads it: a word is cut from its start into the longest pieces that are tokens;
// all but the first are spelled with a prefix. A word that cannot be cut so is one unknown token.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/word_token.h"

namespace lathe::data {

class Vocabulary;

struct WordPieceSettings {
  int32_t unknown_id = 0;
  std::string continuing_prefix = "##";
  size_t max_characters = 100;  // a longer word is unknown
};

class WordPiece {
 public:
  explicit WordPiece(WordPieceSettings settings);
  // At most max_characters² look-ups, whatever the word. Words are remembered per thread.
  void encode(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& tokens) const;

 private:
  WordPieceSettings settings_;
  uint32_t identity_;  // of the words in the cache
};

}  // namespace lathe::data
