#include "data/chat_template/text.h"

#include <algorithm>

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
    for (const TextRange& range : from) {
      const size_t low = std::max(range.begin, begin), high = std::min(range.end, end);
      if (low < high) to.push_back({low - begin, high - begin});
    }
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
