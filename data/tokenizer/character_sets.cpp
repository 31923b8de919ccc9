#include "data/tokenizer/character_sets.h"

#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// Characters are looked at once for each page: machine code would take longer to make than it saves.
constexpr RegexOptions interpreted{.multiline = true, .machine_code = false};

bool is_surrogate(char32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

}  // namespace

CharacterSets::CharacterSets(const std::vector<std::string>& patterns) {
  sets_.reserve(patterns.size());
  for (const std::string& pattern : patterns) sets_.emplace_back(pattern + "+", "a set of characters", interpreted);
}

std::array<uint64_t, CharacterSets::page_size> CharacterSets::members_of_page(char32_t page) const {
  std::array<uint64_t, page_size> members{};
  std::string text;                         // the page's characters
  std::array<size_t, 4 * page_size> index;  // of the one that begins at a byte of the text
  for (char32_t i = 0; i < page_size; ++i) {
    if (is_surrogate(page * page_size + i)) continue;
    index[text.size()] = i;
    append_code_point(text, page * page_size + i);
  }
  for (size_t set = 0; set < sets_.size(); ++set) {
    for (size_t from = 0, begin = 0, end = 0; sets_[set].find(text, from, begin, end); from = end)
      for (size_t at = begin; at < end; at += code_point_length(text[at])) members[index[at]] |= uint64_t{1} << set;
  }
  return members;
}

}  // namespace lathe::data
