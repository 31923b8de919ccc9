// UTF-8: reading code points, repairing what is broken, and GPT-2's printable alphabet for bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lathe::data {

inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";  // U+FFFD

bool is_valid_utf8(std::string_view text);

// One U+FFFD for each maximal subpart of a broken sequence (Unicode 15, section 3.9, table 3-8): the rule of Python's
// errors="replace" and of Rust's from_utf8_lossy.
std::string replace_invalid_utf8(std::string_view text);

// Bytes at the end of `text` that are the beginning of a character which more bytes could complete: 0 to 3.
size_t incomplete_utf8_suffix(std::string_view text);

// The code point at `position` of valid UTF-8; moves position past it.
char32_t next_code_point(std::string_view text, size_t& position);
inline size_t code_point_length(char first_byte) {
  const auto byte = static_cast<unsigned char>(first_byte);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}
void append_code_point(std::string& text, char32_t code_point);
bool is_white_space(char32_t code_point);  // Unicode's White_Space

// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 + n in order.
const std::array<char32_t, 256>& byte_alphabet();
// The bytes that a token in that alphabet stands for; nothing where a character is not of the alphabet.
std::optional<std::string> bytes_of_alphabet(std::string_view token);

}  // namespace lathe::data
