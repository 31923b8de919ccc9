// Marks in a text that comes in pieces, and the blanks around them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace lathe::http {

inline constexpr std::string_view blanks = " \t\r\n";

inline size_t first_other_than_blank(std::string_view text) {
  return std::min(text.find_first_not_of(blanks), text.size());
}

inline size_t without_blanks_at_end(std::string_view text) {
  const size_t last = text.find_last_not_of(blanks);
  return last == std::string_view::npos ? 0 : last + 1;
}

// The longest end of the text that the mark may begin with, the whole mark left out.
inline size_t begun_mark(std::string_view text, std::string_view mark) {
  for (size_t length = std::min(text.size(), mark.size() - 1); length > 0; --length)
    if (text.ends_with(mark.substr(0, length))) return length;
  return 0;
}

}  // namespace lathe::http
