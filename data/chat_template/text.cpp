#include "data/chat_template/text.h"

#include <algorithm>
#include <cstring>

#include "data/tokenizer/utf8.h"

namespace lathe::data::jinja {

Text Text::foreign(std::string bytes) {
  Text text{std::move(bytes), {}, {}};
  if (!text.bytes.empty()) text.inserted.push_back({0, text.bytes.size()});
  return text;
}

Text Text::like(const Text& source, std::string bytes) {
  return source.inserted.empty() ? own(std::move(bytes)) : foreign(std::move(bytes));
}

void Text::append(const Text& other) {
  const size_t shift = bytes.size();
  bytes += other.bytes;
  for (const TextRange& range : other.inserted) {
    if (!inserted.empty() && inserted.back().end == range.begin + shift) {
      inserted.back().end = range.end + shift;
    } else {
      inserted.push_back({range.begin + shift, range.end + shift});
    }
  }
  for (const TextRange& range : other.generated) generated.push_back({range.begin + shift, range.end + shift});
}

Text Text::slice(size_t begin, size_t end) const {
  Text part{bytes.substr(begin, end - begin), {}, {}};
  const auto cut = [&](const std::vector<TextRange>& from, std::vector<TextRange>& to) {
    const auto first =
        std::partition_point(from.begin(), from.end(), [&](const TextRange& range) { return range.end <= begin; });
    for (auto range = first; range != from.end() && range->begin < end; ++range)
      to.push_back({std::max(range->begin, begin) - begin, std::min(range->end, end) - begin});
  };
  cut(inserted, part.inserted);
  cut(generated, part.generated);
  return part;
}

bool is_python_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

size_t character_count(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

size_t byte_of_character(std::string_view text, size_t character) {
  size_t at = 0;
  while (character > 0 && at < text.size()) {
    at += code_point_length(text[at]);
    --character;
  }
  return std::min(at, text.size());
}

size_t find_text(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  const void* found = ::memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

size_t find_last_text(std::string_view text, std::string_view part, size_t from) {
  if (part.size() > text.size()) return std::string_view::npos;
  const size_t last = std::min(from, text.size() - part.size());
  if (part.empty()) return last;
  // Knuth, Morris and Pratt, from the end: fallback[i] is how much of the part's end repeats within its last i
  // characters.
  const auto from_end = [&](size_t i) { return part[part.size() - 1 - i]; };
  std::vector<size_t> fallback(part.size() + 1, 0);
  for (size_t i = 1, matched = 0; i < part.size(); ++i) {
    while (matched > 0 && from_end(i) != from_end(matched)) matched = fallback[matched];
    if (from_end(i) == from_end(matched)) ++matched;
    fallback[i + 1] = matched;
  }
  size_t matched = 0;
  for (size_t end = last + part.size(); end > 0; --end) {
    while (matched > 0 && text[end - 1] != from_end(matched)) matched = fallback[matched];
    if (text[end - 1] == from_end(matched)) ++matched;
    if (matched == part.size()) return end - 1;
  }
  return std::string_view::npos;
}

TextRange stripped(std::string_view text, const std::string* characters, bool left, bool right) {
  const auto strips = [&](size_t begin, size_t end) {
    if (characters) return characters->find(text.substr(begin, end - begin)) != std::string::npos;
    size_t at = begin;
    return is_python_space(next_code_point(text, at));
  };
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const size_t next = begin + code_point_length(text[begin]);
    if (!strips(begin, next)) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    if (!strips(last, end)) break;
    end = last;
  }
  return {begin, end};
}

}  // namespace lathe::data::jinja
