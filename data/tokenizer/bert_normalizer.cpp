#include "data/tokenizer/bert_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

utf8proc_category_t category_of(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_dropped(char32_t c) {
  if (c == 0 || c == 0xFFFD) return true;
  if (c == '\t' || c == '\n' || c == '\r') return false;
  const utf8proc_category_t category = category_of(c);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO;
}

// The blocks of BERT's own code, the gap in the fifth extension with them.
bool is_chinese(char32_t c) {
  static constexpr char32_t blocks[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
                                           {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
                                           {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
  return std::any_of(std::begin(blocks), std::end(blocks),
                     [&](const char32_t(&block)[2]) { return c >= block[0] && c <= block[1]; });
}

// Each character as `spell(c, out)` appends it; its bytes come from where it stood.
template <class Spell>
void respell(AlignedText& text, const Spell& spell) {
  AlignedText changed{{}, text.base};
  changed.most_bytes = text.most_bytes;
  for (size_t at = 0; at < text.text.size();) {
    const size_t place = text.origin_of(at);
    spell(next_code_point(text.text, at), changed.text);
    changed.origin.resize(changed.text.size(), place);
  }
  text = std::move(changed);
}

}  // namespace

void normalize_as_bert(AlignedText& text, const BertNormalization& options) {
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
      if (category_of(c) != UTF8PROC_CATEGORY_MN) append_code_point(out, c);
    });
  }
  if (options.lowercase) Normalizer{Normalizer::Kind::lowercase}.apply(text);
}

}  // namespace lathe::data
