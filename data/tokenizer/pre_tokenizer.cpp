#include "data/tokenizer/pre_tokenizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "core/error.h"
#include "core/json_value.h"
#include "data/tokenizer/split_words.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

using json = nlohmann::ordered_json;

// Rust's char::is_numeric: the general categories Nd, Nl and No.
bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  if (category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO)
    return true;
  // Numbers of Unicode 16 and 17, which Rust knows and utf8proc does not yet.
  static constexpr char32_t newer[][2] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                                          {0x11DE0, 0x11DE9}, {0x16130, 0x16139}, {0x16D70, 0x16D79},
                                          {0x16FF4, 0x16FF6}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
  return std::any_of(std::begin(newer), std::end(newer),
                     [&](const char32_t(&range)[2]) { return c >= range[0] && c <= range[1]; });
}

void cut_digits(std::string_view text, TextPiece word, bool individual, std::vector<TextPiece>& words) {
  size_t begin = word.begin;
  bool in_digits = false;
  for (size_t position = word.begin; position < word.end;) {
    const size_t at = position;
    const bool digit = is_numeric(next_code_point(text, position));
    const bool cut = at > begin && (digit != in_digits || (digit && individual));
    if (cut) {
      words.push_back({begin, at});
      begin = at;
    }
    in_digits = digit;
  }
  if (word.end > begin) words.push_back({begin, word.end});
}

// Puts `bytes` before the words that `wanted` names; words and text stay in step.
template <class Wanted>
void prepend_to_words(AlignedText& text, std::vector<TextPiece>& words, std::string_view bytes, Wanted wanted) {
  std::vector<TextPiece> places;
  size_t shift = 0;
  for (TextPiece& word : words) {
    const size_t before = shift;
    if (wanted(word)) {
      places.push_back({word.begin, word.begin});
      shift += bytes.size();
    }
    word = {word.begin + before, word.end + shift};
  }
  text.replace_all(places, bytes);
}

// A text that was not cut begins where its segment did, even where its first characters were taken away.
bool begins_input(const AlignedText& text, TextPiece word) {
  const bool whole = word.begin == 0 && word.end == text.text.size();
  return whole ? text.base == 0 : text.origin_of(word.begin) == 0;
}

void apply_metaspace(const PreTokenizer& step, AlignedText& text, std::vector<TextPiece>& words) {
  // Spaces in the words become the replacement, which is usually longer.
  std::vector<TextPiece> spaces;
  size_t shift = 0;
  for (TextPiece& word : words) {
    const size_t before = shift;
    for (size_t i = word.begin; i < word.end; ++i) {
      if (text.text[i] != ' ') continue;
      spaces.push_back({i, i + 1});
      shift += step.replacement.size() - 1;
    }
    word = {word.begin + before, word.end + shift};
  }
  text.replace_all(spaces, step.replacement);
  prepend_to_words(text, words, step.replacement, [&](const TextPiece& word) {
    if (step.prepend == PreTokenizer::Prepend::never || word.end == word.begin) return false;
    if (step.prepend == PreTokenizer::Prepend::first && !begins_input(text, word)) return false;
    return text.text.compare(word.begin, step.replacement.size(), step.replacement) != 0;
  });
  if (!step.cut_words) return;
  PreTokenizer cut{PreTokenizer::Kind::split};
  cut.literal = step.replacement;
  cut.cut = PreTokenizer::Cut::merged_with_next;
  cut.apply(text, words);
}

PreTokenizer::Cut cut_named(const std::string& name, const std::string& file) {
  using Cut = PreTokenizer::Cut;
  if (name == "Removed") return Cut::removed;
  if (name == "Isolated") return Cut::isolated;
  if (name == "MergedWithPrevious") return Cut::merged_with_previous;
  if (name == "MergedWithNext") return Cut::merged_with_next;
  if (name == "Contiguous") return Cut::contiguous;
  throw ConfigError(file, "the split behavior '" + name + "' is unknown");
}

PreTokenizer read_split(const json& description, const std::string& file) {
  PreTokenizer step{PreTokenizer::Kind::split};
  const json& pattern = description.at("pattern");
  if (pattern.contains("Regex")) {
    step.pattern.emplace_back(pattern.at("Regex").get<std::string>(), file + " pre_tokenizer Split");
  } else {
    step.literal = pattern.at("String");
    if (step.literal.empty()) throw ConfigError(file, "a Split pre-tokenizer has an empty pattern");
  }
  step.cut = cut_named(description.at("behavior"), file);
  step.invert = description.value("invert", false);
  return step;
}

PreTokenizer read_metaspace(const json& description, const std::string& file) {
  PreTokenizer step{PreTokenizer::Kind::metaspace};
  step.replacement = description.value("replacement", std::string("▁"));
  step.cut_words = description.value("split", true);
  const std::string scheme = description.contains("prepend_scheme")
                                 ? description.at("prepend_scheme").get<std::string>()
                             : description.value("add_prefix_space", true) ? "always"
                                                                           : "never";
  if (scheme == "always") {
    step.prepend = PreTokenizer::Prepend::always;
  } else if (scheme == "first") {
    step.prepend = PreTokenizer::Prepend::first;
  } else if (scheme == "never") {
    step.prepend = PreTokenizer::Prepend::never;
  } else {
    throw ConfigError(file, "the Metaspace prepend_scheme '" + scheme + "' is unknown");
  }
  if (step.replacement.empty()) throw ConfigError(file, "Metaspace has an empty replacement");
  return step;
}

// Rust's char::is_whitespace, of which PCRE2's \s has one more (U+180E).
constexpr const char* white_space_pattern =
    R"([\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}])";
// ASCII's, and those that the Unicode tables of Hugging Face's tokenizers know, of version 8.
const std::string punctuation_pattern =
    R"([!-/:-@\[-`{-~]|(?![)"
    R"(\x{61d}\x{9fd}\x{a76}\x{c77}\x{c84}\x{1b7d}-\x{1b7e}\x{2e43}-\x{2e4f}\x{2e52}-\x{2e5d}\x{10ead})"
    R"(\x{10f55}-\x{10f59}\x{10f86}-\x{10f89}\x{1144b}-\x{1144f}\x{1145a}-\x{1145b}\x{1145d})"
    R"(\x{11660}-\x{1166c}\x{116b9}\x{1183b}\x{11944}-\x{11946}\x{119e2}\x{11a3f}-\x{11a46})"
    R"(\x{11a9a}-\x{11a9c}\x{11a9e}-\x{11aa2}\x{11c41}-\x{11c45}\x{11c70}-\x{11c71}\x{11ef7}-\x{11ef8})"
    R"(\x{11b00}-\x{11b09}\x{11f43}-\x{11f4f})"
    R"(\x{11fff}\x{12ff1}-\x{12ff2}\x{16e97}-\x{16e9a}\x{16fe2}\x{1e95e}-\x{1e95f})"
    R"(])[\p{P}\x{166d}\x{111c9}])";

PreTokenizer white_space_pre_tokenizer(const std::string& file) {
  PreTokenizer step = split_pre_tokenizer(white_space_pattern, file);
  step.cut = PreTokenizer::Cut::removed;
  return step;
}

void read_into(const json& description, const std::string& file, PreTokenizers& all) {
  const std::string type = description.at("type");
  if (all.byte_level && type != "Sequence") {
    throw ConfigError(file,
                      "the pre-tokenizer '" + type + "' comes after ByteLevel, which is supported only as the last");
  }
  if (type == "Sequence") {
    for (const json& part : description.at("pretokenizers")) read_into(part, file, all);
  } else if (type == "ByteLevel") {
    if (description.value("add_prefix_space", true))
      all.steps.push_back(PreTokenizer{PreTokenizer::Kind::prefix_space});
    if (description.value("use_regex", true)) all.steps.push_back(split_pre_tokenizer(gpt2_pattern, file));
    all.byte_level = true;
  } else if (type == "Digits") {
    all.steps.push_back(digits_pre_tokenizer(description.value("individual_digits", false)));
  } else if (type == "Split") {
    all.steps.push_back(read_split(description, file));
  } else if (type == "Metaspace") {
    all.steps.push_back(read_metaspace(description, file));
    all.looks_at_origin |= all.steps.size() > 1 && all.steps.back().prepend == PreTokenizer::Prepend::first;
  } else if (type == "WhitespaceSplit") {
    all.steps.push_back(white_space_pre_tokenizer(file));
  } else if (type == "BertPreTokenizer") {
    all.steps.push_back(white_space_pre_tokenizer(file));
    all.steps.push_back(split_pre_tokenizer(punctuation_pattern, file));
  } else {
    throw ConfigError(file,
                      "the pre-tokenizer '" + type +
                          "' is not supported (ByteLevel, Digits, Split, Metaspace, WhitespaceSplit, BertPreTokenizer "
                          "and Sequence are)");
  }
}

}  // namespace

const char* const gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

PreTokenizer split_pre_tokenizer(const std::string& pattern, const std::string& where) {
  PreTokenizer step{PreTokenizer::Kind::split};
  step.pattern.emplace_back(pattern, where);
  return step;
}

PreTokenizer digits_pre_tokenizer(bool individual) {
  PreTokenizer step{PreTokenizer::Kind::digits};
  step.individual = individual;
  return step;
}

void PreTokenizer::apply(AlignedText& text, std::vector<TextPiece>& words) const {
  if (kind == Kind::metaspace) return apply_metaspace(*this, text, words);
  if (kind == Kind::prefix_space) {
    return prepend_to_words(
        text, words, " ", [&](const TextPiece& word) { return word.end > word.begin && text.text[word.begin] != ' '; });
  }
  std::vector<TextPiece> finer;
  finer.reserve(words.size() + text.text.size() / 4);
  for (const TextPiece& word : words) {
    if (kind == Kind::digits) {
      cut_digits(text.text, word, individual, finer);
    } else {
      split_word(*this, text.text, word, finer);
    }
  }
  words = std::move(finer);
}

PreTokenizers read_pre_tokenizers(const json& description, const std::string& file) {
  PreTokenizers all;
  if (!description.is_null()) read_into(description, file, all);
  return all;
}

}  // namespace lathe::data
