// Byte pair encoding of one word (Sennrich et al., 2016): adjacent symbols are merged, best rank first, leftmost
// first among equals, until no pair has a rank.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "data/tokenizer/merge_boundaries.h"
#include "data/tokenizer/merge_table.h"
#include "data/tokenizer/vocabulary.h"
#include "data/tokenizer/word_token.h"

namespace lathe::data {

enum class BpeAlphabet {
  bytes,       // a word starts as its bytes in GPT-2's alphabet
  characters,  // a word starts as its code points
};

struct BpeSettings {
  BpeAlphabet alphabet = BpeAlphabet::bytes;
  bool byte_fallback = false;         // an unknown character becomes its bytes' tokens <0xNN>
  bool ignore_merges = false;         // a word that is a token is that token, whatever the merges say
  bool fuse_unknown = false;          // neighbouring unknown characters become one unknown token
  std::optional<int32_t> unknown_id;  // without one, unknown characters vanish (as in Hugging Face's tokenizers)
};

class Bpe {
 public:
  using Merge = BpeMerge;

  Bpe(BpeSettings settings, const Vocabulary& vocabulary, std::span<const Merge> merges);

  // Appends the word's tokens. Linear in short words, n log n in long ones. Words are remembered per thread.
  void encode(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& tokens) const;

 private:
  bool may_be_cut(const Vocabulary& vocabulary, std::span<const Merge> merges) const;
  void encode_piece(std::string_view piece, uint32_t begin, const Vocabulary& vocabulary,
                    std::vector<WordToken>& tokens) const;
  void split(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& symbols) const;
  void merge_short(std::vector<WordToken>& symbols) const;
  void merge_long(std::vector<WordToken>& symbols) const;

  BpeSettings settings_;
  uint32_t identity_;  // tells this object's words from another's in the cache
  MergeTable merges_;
  std::vector<int32_t> byte_ids_;               // id of each byte's symbol, or -1
  std::array<int32_t, 128> ascii_ids_;          // id of each ASCII character, or -1
  std::array<int32_t, 256> byte_fallback_ids_;  // id of <0xNN>, or -1
  MergeBoundaries boundaries_;                  // of words that are whole texts
};

}  // namespace lathe::data
