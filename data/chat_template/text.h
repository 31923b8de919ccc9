// A string that knows where its bytes come from.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace lathe::data::jinja {

struct Text {
  std::string bytes;
  std::vector<TextRange> inserted;   // from messages and variables; sorted, disjoint, not adjacent
  std::vector<TextRange> generated;  // one for each {% generation %} block

  static Text own(std::string bytes) { return {std::move(bytes), {}, {}}; }
  static Text foreign(std::string bytes);
  // Bytes that were computed from `source`: if any part of it was inserted, all of them count as inserted.
  static Text like(const Text& source, std::string bytes);

  void append(const Text& other);
  Text slice(size_t begin, size_t end) const;
};

// Python's str.isspace: what strip() and split() take for white space.
bool is_python_space(char32_t c);

// Python counts characters: how many there are, and the byte at which the n-th begins (or the end).
size_t character_count(std::string_view text);
size_t byte_of_character(std::string_view text, size_t character);

// Where `part` first begins at `from` or after, and where it last begins at `from` or before; npos where it does not.
// Both take time linear in the text, which std::string's do not: a megabyte of 'a' searched for half of one and a 'b'
// took minutes.
size_t find_text(std::string_view text, std::string_view part, size_t from);
size_t find_last_text(std::string_view text, std::string_view part, size_t from = std::string_view::npos);

// [begin, end) of the text without the leading and trailing characters of `characters` (white space if null).
TextRange stripped(std::string_view text, const std::string* characters, bool left, bool right);

}  // namespace lathe::data::jinja
