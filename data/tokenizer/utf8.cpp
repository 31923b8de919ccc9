#include "data/tokenizer/utf8.h"

#include <simdjson.h>

namespace lathe::data {
namespace {

// How many bytes at `position` form one character (length, valid), or the maximal broken subpart (length, invalid).
struct Sequence {
  size_t length;
  bool valid;
  bool truncated;  // invalid only because the text ends here
};

Sequence sequence_at(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(position);
  if (first < 0x80) return {1, true, false};
  // The second byte's range excludes overlong forms, surrogates and code points past U+10FFFF.
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return {1, false, false};
  }
  for (size_t i = 1; i < length; ++i) {
    if (position + i >= text.size()) return {i, false, true};
    if (byte(position + i) < low || byte(position + i) > high) return {i, false, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true, false};
}

// Characters below U+0200 to the byte they stand for, or -1.
std::array<int16_t, 512> alphabet_to_byte() {
  std::array<int16_t, 512> table;
  table.fill(-1);
  for (int byte = 0; byte < 256; ++byte) table[byte_alphabet()[byte]] = static_cast<int16_t>(byte);
  return table;
}

}  // namespace

bool is_valid_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

std::string replace_invalid_utf8(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size() + 16);
  for (size_t position = 0; position < text.size();) {
    const Sequence sequence = sequence_at(text, position);
    repaired += sequence.valid ? text.substr(position, sequence.length) : replacement_character;
    position += sequence.length;
  }
  return repaired;
}

size_t incomplete_utf8_suffix(std::string_view text) {
  for (size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    const size_t position = text.size() - length;
    if ((static_cast<unsigned char>(text[position]) & 0xC0) == 0x80) continue;  // a continuation: look further back
    return sequence_at(text, position).truncated ? length : 0;
  }
  return 0;
}

char32_t next_code_point(std::string_view text, size_t& position) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  const char32_t first = byte(position);
  const size_t length = code_point_length(text[position]);
  char32_t code_point = length == 1 ? first : length == 2 ? first & 0x1F : length == 3 ? first & 0x0F : first & 0x07;
  for (size_t i = 1; i < length; ++i) code_point = (code_point << 6) | (byte(position + i) & 0x3F);
  position += length;
  return code_point;
}

void append_code_point(std::string& text, char32_t c) {
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xC0 | (c >> 6));
    text += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    text += static_cast<char>(0xE0 | (c >> 12));
    text += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    text += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | (c >> 18));
    text += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    text += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    text += static_cast<char>(0x80 | (c & 0x3F));
  }
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

const std::array<char32_t, 256>& byte_alphabet() {
  static const std::array<char32_t, 256> alphabet = [] {
    std::array<char32_t, 256> table{};
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      table[byte] = printable ? byte : next++;
    }
    return table;
  }();
  return alphabet;
}

std::optional<std::string> bytes_of_alphabet(std::string_view token) {
  static const std::array<int16_t, 512> table = alphabet_to_byte();
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t position = 0; position < token.size();) {
    const char32_t c = next_code_point(token, position);
    if (c >= table.size() || table[c] < 0) return std::nullopt;
    bytes += static_cast<char>(table[c]);
  }
  return bytes;
}

}  // namespace lathe::data
