#include "data/tokenizer/bert_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

utf8proc_category_t category_of(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

// What the Unicode tables of Hugging Face's tokenizers, of version 8, do not know as marks
constexpr char32_t marks_since_8[][2] = {
    {0xECE, 0xECE},     {0x10EFD, 0x10EFF}, {0x11241, 0x11241}, {0x11F00, 0x11F01}, {0x11F36, 0x11F3A},
    {0x11F40, 0x11F40}, {0x11F42, 0x11F42}, {0x13440, 0x13440}, {0x13447, 0x13455}, {0x1E08F, 0x1E08F},
    {0x1E4EC, 0x1E4EF}, {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8E1},     {0x9FE, 0x9FE},
    {0xAFA, 0xAFF},     {0xB55, 0xB55},     {0xC04, 0xC04},     {0xC3C, 0xC3C},     {0xD00, 0xD00},
    {0xD3B, 0xD3C},     {0xD81, 0xD81},     {0xEBA, 0xEBA},     {0x180F, 0x180F},   {0x1885, 0x1886},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFB},   {0xA82C, 0xA82C},   {0xA8C5, 0xA8C5},   {0xA8FF, 0xA8FF},
    {0xA9BD, 0xA9BD},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x11073, 0x11074}, {0x110C2, 0x110C2}, {0x111CF, 0x111CF}, {0x1123E, 0x1123E},
    {0x1133B, 0x1133B}, {0x11438, 0x1143F}, {0x11442, 0x11444}, {0x11446, 0x11446}, {0x1145E, 0x1145E},
    {0x1182F, 0x11837}, {0x11839, 0x1183A}, {0x1193B, 0x1193C}, {0x1193E, 0x1193E}, {0x11943, 0x11943},
    {0x119D4, 0x119D7}, {0x119DA, 0x119DB}, {0x119E0, 0x119E0}, {0x11A01, 0x11A0A}, {0x11A33, 0x11A38},
    {0x11A3B, 0x11A3E}, {0x11A47, 0x11A47}, {0x11A51, 0x11A56}, {0x11A59, 0x11A5B}, {0x11A8A, 0x11A96},
    {0x11A98, 0x11A99}, {0x11C30, 0x11C36}, {0x11C38, 0x11C3D}, {0x11C3F, 0x11C3F}, {0x11C92, 0x11CA7},
    {0x11CAA, 0x11CB0}, {0x11CB2, 0x11CB3}, {0x11CB5, 0x11CB6}, {0x11D31, 0x11D36}, {0x11D3A, 0x11D3A},
    {0x11D3C, 0x11D3D}, {0x11D3F, 0x11D45}, {0x11D47, 0x11D47}, {0x11D90, 0x11D91}, {0x11D95, 0x11D95},
    {0x11D97, 0x11D97}, {0x11EF3, 0x11EF4}, {0x16F4F, 0x16F4F}, {0x16FE4, 0x16FE4}, {0x1CF00, 0x1CF2D},
    {0x1CF30, 0x1CF46}, {0x1E000, 0x1E006}, {0x1E008, 0x1E018}, {0x1E01B, 0x1E021}, {0x1E023, 0x1E024},
    {0x1E026, 0x1E02A}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E944, 0x1E94A}};
// and as characters without a shape of their own.
constexpr char32_t format_since_8[][2] = {{0x890, 0x891}, {0x8E2, 0x8E2}, {0x110CD, 0x110CD}, {0x13430, 0x1343F}};

template <size_t count>
bool is_in(const char32_t (&blocks)[count][2], char32_t c) {
  return std::any_of(std::begin(blocks), std::end(blocks),
                     [&](const char32_t(&block)[2]) { return c >= block[0] && c <= block[1]; });
}

// U+1734 and U+111C9 have changed their category since.
bool is_nonspacing_mark(char32_t c) {
  return c == 0x1734 || (c != 0x111C9 && category_of(c) == UTF8PROC_CATEGORY_MN && !is_in(marks_since_8, c));
}

bool is_dropped(char32_t c) {
  if (c == 0 || c == 0xFFFD) return true;
  if (c == '\t' || c == '\n' || c == '\r') return false;
  const utf8proc_category_t category = category_of(c);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CO ||
         (category == UTF8PROC_CATEGORY_CF && !is_in(format_since_8, c));
}

// The blocks of BERT's own code, the gap in the fifth extension with them.
bool is_chinese(char32_t c) {
  static constexpr char32_t blocks[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
                                           {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
                                           {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
  return is_in(blocks, c);
}

// Each character as `spell(c, out)` appends it; its bytes come from where it stood.
template <class Spell>
void respell(AlignedText& text, const Spell& spell) {
  AlignedText changed{{}, text.base};
  changed.most_bytes = text.most_bytes;
  changed.keeps_origin = text.keeps_origin;
  for (size_t at = 0; at < text.text.size();) {
    const size_t place = text.origin_of(at);
    spell(next_code_point(text.text, at), changed.text);
    if (text.keeps_origin) changed.origin.resize(changed.text.size(), place);
  }
  text = std::move(changed);
}

// A text with characters beyond ASCII, step by step.
void normalize_step_by_step(AlignedText& text, const BertNormalization& options) {
  if (options.clean_text)
    respell(text, [](char32_t c, std::string& out) {
      if (!is_dropped(c)) append_code_point(out, is_white_space(c) ? U' ' : c);
    });
  if (options.handle_chinese_chars)
    respell(text, [](char32_t c, std::string& out) {
      if (is_chinese(c)) out += ' ';
      append_code_point(out, c);
      if (is_chinese(c)) out += ' ';
    });
  if (options.strip_accents) {
    Normalizer{Normalizer::Kind::nfd}.apply(text);
    respell(text, [](char32_t c, std::string& out) {
      if (!is_nonspacing_mark(c)) append_code_point(out, c);
    });
  }
  if (options.lowercase) Normalizer{Normalizer::Kind::lowercase}.apply(text);
}

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

// What becomes of each ASCII character, whatever stands beside it; 0: it is dropped.
std::array<char, 128> ascii_table(const BertNormalization& options) {
  std::array<char, 128> table;
  for (char32_t c = 0; c < table.size(); ++c) {
    char becomes = static_cast<char>(c);
    if (options.clean_text && is_white_space(c)) becomes = ' ';
    if (options.clean_text && is_dropped(c)) becomes = 0;
    if (options.lowercase && c >= 'A' && c <= 'Z') becomes = static_cast<char>(c - 'A' + 'a');
    table[c] = becomes;
  }
  return table;
}

// Where so many characters in a row are ASCII, they are no longer taken along with those before them.
constexpr size_t ascii_stretch = 16;

size_t end_of_other(std::string_view text, size_t at) {
  for (size_t in_a_row = 0; at < text.size(); ++at) {
    in_a_row = is_ascii(text[at]) ? in_a_row + 1 : 0;
    if (in_a_row == ascii_stretch) return at + 1 - ascii_stretch;
  }
  return text.size();
}

}  // namespace

// Every step looks at one character, or at one with the marks behind it, which are not ASCII: stretches of ASCII are
// mapped by a table, the rest goes step by step.
void normalize_as_bert(AlignedText& text, const BertNormalization& options) {
  const std::array<char, 128> table = ascii_table(options);
  const auto stays_in_place = [&](char c) { return is_ascii(c) && table[static_cast<unsigned char>(c)] != 0; };
  if (std::all_of(text.text.begin(), text.text.end(), stays_in_place)) {
    for (char& c : text.text) c = table[static_cast<unsigned char>(c)];
    return;
  }
  AlignedText changed{{}, text.base};
  changed.most_bytes = text.most_bytes;
  changed.keeps_origin = text.keeps_origin;
  changed.text.reserve(text.text.size());
  if (text.keeps_origin) changed.origin.reserve(text.text.size());
  for (size_t at = 0; at < text.text.size();) {
    if (is_ascii(text.text[at])) {
      if (const char c = table[static_cast<unsigned char>(text.text[at])]) {
        changed.text += c;
        if (text.keeps_origin) changed.origin.push_back(text.origin_of(at));
      }
      ++at;
      continue;
    }
    const size_t end = end_of_other(text.text, at);
    AlignedText part{text.text.substr(at, end - at), text.base + at};
    part.keeps_origin = text.keeps_origin;
    if (!text.origin.empty())
      part.origin.assign(text.origin.begin() + static_cast<std::ptrdiff_t>(at),
                         text.origin.begin() + static_cast<std::ptrdiff_t>(end));
    normalize_step_by_step(part, options);
    for (size_t i = 0; i < part.text.size() && text.keeps_origin; ++i) changed.origin.push_back(part.origin_of(i));
    changed.text += part.text;
    at = end;
  }
  text = std::move(changed);
}

}  // namespace lathe::data
