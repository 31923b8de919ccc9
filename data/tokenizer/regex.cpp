#include "data/tokenizer/regex.h"

namespace lathe::data {
namespace {

// Oniguruma's \s: Unicode's White_Space. PCRE2's adds U+180E.
constexpr std::string_view white_space =
    R"(\t-\r\x20\x85\xA0\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Letters, numbers and marks of Unicode 15 to 16, which Oniguruma knows and PCRE2 10.42 does not.
constexpr std::string_view newer_letters =
    R"(\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65}\x{10D6F}-\x{10D85})"
    R"(\x{10EC2}-\x{10EC4}\x{1123F}\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E}\x{11390}-\x{113B5}\x{113B7}\x{113D1})"
    R"(\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10}\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446})"
    R"(\x{13460}-\x{143FA}\x{16100}-\x{1611D}\x{16D40}-\x{16D6C}\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A})"
    R"(\x{1E030}-\x{1E06D}\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view newer_numbers =
    R"(\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59}\x{16130}-\x{16139}\x{16D70}-\x{16D79})"
    R"(\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA})";
constexpr std::string_view newer_marks =
    R"(\x{0897}\x{0CF3}\x{0ECE}\x{10D69}-\x{10D6D}\x{10EFC}-\x{10EFF}\x{11241}\x{113B8}-\x{113C0}\x{113C2}\x{113C5})"
    R"(\x{113C7}-\x{113CA}\x{113CC}-\x{113D0}\x{113D2}\x{113E1}\x{113E2}\x{11F00}\x{11F01}\x{11F03}\x{11F34}-\x{11F3A})"
    R"(\x{11F3E}-\x{11F42}\x{11F5A}\x{13440}\x{13447}-\x{13455}\x{1611E}-\x{1612F}\x{1E08F}\x{1E4EC}-\x{1E4EF}\x{1E5EE}\x{1E5EF})";

// Backtracking steps for one match. The tokenizers' own patterns need a few for each character of a word.
constexpr uint32_t match_steps = 50'000'000;

}  // namespace

std::string as_pcre2_pattern(std::string_view pattern) {
  std::string rewritten;
  int class_depth = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char kind = pattern[i + 1];
      if (kind == 's') {
        rewritten += class_depth ? std::string(white_space) : "[" + std::string(white_space) + "]";
      } else if (const std::string_view rest = pattern.substr(i);
                 rest.starts_with(R"(\p{L})") || rest.starts_with(R"(\p{N})") || rest.starts_with(R"(\p{M})")) {
        const std::string_view newer = rest[3] == 'L' ? newer_letters : rest[3] == 'N' ? newer_numbers : newer_marks;
        const std::string members = std::string(rest.substr(0, 5)).append(newer);
        rewritten += class_depth ? members : "[" + members + "]";
        i += 3;
      } else if (kind == 'S' && !class_depth) {
        rewritten += "[^" + std::string(white_space) + "]";
      } else {
        rewritten += c;
        rewritten += kind;
      }
      ++i;
      continue;
    }
    if (c == '[') {
      ++class_depth;
      // A ']' that comes first in a class is a character of it.
      rewritten += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') rewritten += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') rewritten += pattern[++i];
      continue;
    }
    if (c == ']' && class_depth) --class_depth;
    rewritten += c;
  }
  return rewritten;
}

Regex tokenizer_regex(std::string_view pattern, const std::string& where) {
  return {as_pcre2_pattern(pattern), where, {.multiline = true, .machine_code = true, .steps = match_steps}};
}

}  // namespace lathe::data
