#include "data/tokenizer/merge_boundaries.h"

#include <algorithm>
#include <bit>

#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

char32_t first_character(std::string_view text) {
  size_t position = 0;
  return next_code_point(text, position);
}

char32_t last_character(std::string_view text) {
  size_t position = text.size() - 1;
  while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80) --position;
  return next_code_point(text, position);
}

}  // namespace

MergeBoundaries::MergeBoundaries(const Vocabulary& vocabulary, std::span<const std::pair<int32_t, int32_t>> merges) {
  std::vector<std::pair<char32_t, char32_t>> pairs;
  pairs.reserve(merges.size());
  for (const auto& [left, right] : merges)
    pairs.emplace_back(last_character(vocabulary.token(left)), first_character(vocabulary.token(right)));
  std::ranges::sort(pairs);
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  // One boundary in sixty is missed.
  const size_t bits = std::bit_ceil(std::max<size_t>(64, 64 * pairs.size()));
  shift_ = 64 - std::countr_zero(bits);
  joined_.assign(bits / 64, 0);
  for (const auto& [left, right] : pairs) {
    const size_t place = place_of(left, right);
    joined_[place / 64] |= uint64_t{1} << (place % 64);
    if ((left | right) < 128) ascii_[left][right / 64] |= uint64_t{1} << (right % 64);
  }
}

size_t MergeBoundaries::next(std::string_view word, size_t begin) const {
  if (joined_.empty()) return word.size();
  char32_t left = next_code_point(word, begin);
  while (begin < word.size()) {
    const size_t boundary = begin;
    const auto byte = static_cast<unsigned char>(word[begin]);
    char32_t right = byte;
    byte < 0x80 ? void(++begin) : void(right = next_code_point(word, begin));
    if (!joins(left, right)) return boundary;
    left = right;
  }
  return word.size();
}

}  // namespace lathe::data
