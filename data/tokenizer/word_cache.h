// The words that a thread tokenised last: text repeats its words, and looking one up costs a fifth of merging it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "data/tokenizer/word_token.h"

namespace lathe::data {

class WordCache {
 public:
  static WordCache& of_this_thread();
  // Tells one model's words from another's.
  static uint64_t new_owner();

  // Whether the word is known; then appends its tokens, moved by `base`. Longer words than max_bytes never are.
  bool append(uint64_t owner, std::string_view word, uint32_t base, std::vector<WordToken>& tokens) const;
  // Remembers a word's tokens, which were appended moved by `base`, where they are short enough.
  void put(uint64_t owner, std::string_view word, uint32_t base, std::span<const WordToken> tokens);

 private:
  static constexpr size_t max_bytes = 46;  // a line of code that begins with eight of SentencePiece's blanks
  static constexpr size_t max_tokens = 6;
  struct Entry {
    uint64_t owner = 0;
    uint8_t length = 0;
    uint8_t count = 0;
    char word[max_bytes];
    int32_t ids[max_tokens];
    uint8_t begins[max_tokens];
    uint8_t ends[max_tokens];
  };

  WordCache();
  size_t slot_of(std::string_view word) const;

  std::vector<Entry> entries_;
};

}  // namespace lathe::data
