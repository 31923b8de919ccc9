// SentencePiece's unigram model (Kudo 2018): of all ways to cut a word into pieces, the one whose scores add up to the
// most. In agreement with Hugging Face's tokenizers, sums in f64.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "data/tokenizer/piece_trie.h"
#include "data/tokenizer/word_token.h"

namespace lathe::data {

class Vocabulary;

// All pieces that begin at a character are tried: a file may not ask for minutes. SentencePiece's own limit is 16
// characters.
inline constexpr size_t most_piece_bytes = 4096;

struct UnigramSettings {
  bool byte_fallback = false;         // unknown text becomes its bytes' tokens <0xNN>, where all of them are there
  std::optional<int32_t> unknown_id;  // neighbouring unknown characters are one of these
};

// A score as Hugging Face's tokenizers reads its digits: they make a whole number, rounded to f64, which is divided by
// a power of ten (serde_json's quick way), so that the last bit of one in five differs from the nearest f64 that
// `nearest` is. Pieces whose scores tie but for that bit are told apart by it.
double unigram_score(double nearest);

class Unigram {
 public:
  // scores[id] is the logarithm of token id's probability.
  Unigram(UnigramSettings settings, const Vocabulary& vocabulary, const std::vector<double>& scores);

  // Appends the word's tokens. Linear in the word's length times that of the longest token. ConfigError where a
  // character is unknown and nothing stands for it.
  void encode(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& tokens) const;

 private:
  // Where the best last piece before each byte begins, and the trie's node for it.
  struct Node {
    double score = 0;
    int32_t begin = -1;
    uint32_t piece = unknown_piece;
  };
  static constexpr uint32_t unknown_piece = ~0u;
  void best_path(std::string_view word, std::vector<Node>& nodes) const;
  void append_text(std::string_view text, size_t begin, const Vocabulary& vocabulary,
                   std::vector<WordToken>& tokens) const;

  UnigramSettings settings_;
  uint32_t identity_;  // of the words in the cache
  PieceTrie pieces_;
  double unknown_score_ = 0;
  std::array<int32_t, 256> byte_ids_;  // of <0xNN>; negative: none
};

}  // namespace lathe::data
