// Where a text may be cut so that no merge is lost: SentencePiece's BPE has whole texts for words, which would be
// merged by a heap as large as the text (1 MB/s); cut into words of its own they are merged alone, and remembered.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "data/tokenizer/vocabulary.h"

namespace lathe::data {

// A merge joins a token that ends with some character to one that begins with some other. Between two characters for
// which there is no such merge no tokens ever join, whatever happens around them.
class MergeBoundaries {
 public:
  // Never a boundary.
  MergeBoundaries() = default;
  // Of merges (left, right) whose tokens' texts are what they stand for in a word.
  MergeBoundaries(const Vocabulary& vocabulary, std::span<const std::pair<int32_t, int32_t>> merges);

  // The first boundary after `begin`, which is before the end of `word`; the word's length where there is none.
  size_t next(std::string_view word, size_t begin) const;

 private:
  size_t place_of(char32_t left, char32_t right) const {
    return static_cast<size_t>(((uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u) >> shift_);
  }
  bool joins(char32_t left, char32_t right) const {
    if ((left | right) < 128) return (ascii_[left][right / 64] >> (right % 64) & 1) != 0;
    const size_t place = place_of(left, right);
    return (joined_[place / 64] >> (place % 64) & 1) != 0;
  }

  // A bit for each pair of characters that some merge joins, by hash: a pair that shares another's bit is no boundary,
  // which costs time alone.
  std::vector<uint64_t> joined_;
  std::array<std::array<uint64_t, 2>, 128> ascii_{};  // those of ASCII once more, each by itself
  int shift_ = 63;
};

}  // namespace lathe::data
