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
  static uint32_t new_owner();

  // Whether the word is known; then appends its tokens, moved by `base`. Long words never are.
  bool append(uint32_t owner, std::string_view word, uint32_t base, std::vector<WordToken>& tokens) const;
  // Remembers a word's tokens, which were appended moved by `base`, where word and tokens have room in an entry and the
  // tokens cover the word without a gap.
  void put(uint32_t owner, std::string_view word, uint32_t base, std::span<const WordToken> tokens);

 private:
  // A line of the processor's cache: a look-up reads no other.
  static constexpr size_t room = 58;
  struct alignas(64) Entry {
    uint32_t owner = 0;
    uint8_t length = 0;
    uint8_t count = 0;
    char bytes[room];  // the word, the tokens' ends (a byte each), their ids (four bytes each)
  };
  // A megabyte for each thread: a fourth fewer words are merged than with half of it.
  static constexpr size_t entry_count = 16384;

  WordCache();
  size_t slot_of(std::string_view word) const;
  static bool holds(const Entry& entry, uint32_t owner, std::string_view word);

  std::vector<Entry> entries_;  // a word is in one of two neighbours
};

}  // namespace lathe::data
