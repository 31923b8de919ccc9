#include "data/tokenizer/composed_text.h"

#include <algorithm>

#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// Between them lie combining marks, vowels that join Indic letters, and characters that NFC writes in another way.
constexpr char32_t ranges[][2] = {
    {0x0, 0x2FF},                          // Latin
    {0x388, 0x482},   {0x48A, 0x590},      // Greek, Cyrillic, Armenian
    {0x2002, 0x20CF},                      // punctuation, super- and subscripts, currencies
    {0x2150, 0x2328}, {0x232B, 0x2ADB},    // arrows, operators, boxes
    {0x3001, 0x3029}, {0x3030, 0x3098},    // Chinese punctuation, hiragana
    {0x309B, 0x9FFF}, {0xAC00, 0xD7A3},    // katakana, Chinese, syllables of Hangul
    {0xFF01, 0xFFFD}, {0x1F000, 0x1FAFF},  // wide and narrow forms, emoji
};

}  // namespace

bool stays_in_nfc(char32_t c) {
  if (c <= ranges[0][1]) return true;
  const auto* const range =
      std::find_if(std::begin(ranges), std::end(ranges), [&](const auto& r) { return c <= r[1]; });
  return range != std::end(ranges) && c >= (*range)[0];
}

std::string compose_text(std::string_view text, const std::function<std::string(std::string_view)>& normal_form) {
  std::string composed;
  size_t copied = 0;  // of text
  size_t before = 0;  // the last character that stays
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (stays_in_nfc(next_code_point(text, at))) {
      before = begin;
      continue;
    }
    size_t end = at;
    while (end < text.size() && !stays_in_nfc(next_code_point(text, at))) end = at;
    composed += text.substr(copied, before - copied);
    composed += normal_form(text.substr(before, end - before));
    copied = before = at = end;
  }
  return composed.append(text.substr(copied));
}

}  // namespace lathe::data
