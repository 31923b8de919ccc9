#include "data/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "core/json_value.h"
#include "data/tokenizer/character_filters.h"
#include "data/tokenizer/composed_text.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

using json = nlohmann::ordered_json;

// Combining marks newer than the Unicode tables of Hugging Face's tokenizers, which leaves them where they stand
// and moves no other mark past them. (utf8proc would sort them by their class.)
constexpr char32_t unsorted_marks[][2] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
    {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
    {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}};

bool is_unsorted_mark(char32_t c) {
  if (c < unsorted_marks[0][0]) return false;
  return std::any_of(std::begin(unsorted_marks), std::end(unsorted_marks),
                     [&](const char32_t(&range)[2]) { return c >= range[0] && c <= range[1]; });
}

std::string normal_form_of_run(std::string_view text, utf8proc_option_t options) {
  if (text.empty()) return {};
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                               static_cast<utf8proc_ssize_t>(text.size()), &result, options);
  if (length < 0) throw Error(std::string("Unicode normalisation failed: ") + utf8proc_errmsg(length));
  std::string normal(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
  std::free(result);
  return normal;
}

std::string normal_form(std::string_view text, utf8proc_option_t options) {
  // ASCII text is the same in every normal form.
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    return std::string(text);
  std::string normal;
  size_t run = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (!is_unsorted_mark(next_code_point(text, at))) continue;
    normal += normal_form_of_run(text.substr(run, begin - run), options);
    normal += text.substr(begin, at - begin);
    run = at;
  }
  return normal + normal_form_of_run(text.substr(run), options);
}

// Each range by what bytes_of says of it.
template <class Ranges, class BytesOf>
void replace_ranges(AlignedText& aligned, const Ranges& ranges, const BytesOf& bytes_of) {
  if (ranges.empty()) return;
  size_t size = aligned.text.size();
  for (const auto& range : ranges) size += bytes_of(range).size() - (range.end - range.begin);
  if (size > aligned.most_bytes)
    throw Error("the tokenizer's normaliser makes " + std::to_string(size) + " bytes of a text, more than the " +
                std::to_string(aligned.most_bytes) + " that it may");
  std::string changed;
  std::vector<size_t> places;
  changed.reserve(size);
  if (aligned.keeps_origin) places.reserve(size);
  size_t position = 0;
  const auto keep = [&](size_t end) {
    changed.append(aligned.text, position, end - position);
    for (; aligned.keeps_origin && position < end; ++position) places.push_back(aligned.origin_of(position));
    position = end;
  };
  for (const auto& range : ranges) {
    keep(range.begin);
    const std::string_view bytes = bytes_of(range);
    changed += bytes;
    position = range.end;
    if (!aligned.keeps_origin) continue;
    const size_t place =
        range.begin < aligned.text.size() ? aligned.origin_of(range.begin) : aligned.origin_end(aligned.text.size());
    const size_t last = range.end > range.begin ? aligned.origin_of(range.end - 1) : place;
    for (size_t i = 0; i < bytes.size(); ++i) places.push_back(i + 1 < bytes.size() ? place : last);
  }
  keep(aligned.text.size());
  aligned.text = std::move(changed);
  aligned.origin = std::move(places);
}

// Where the new text begins and ends as the old one does, bytes keep their origins; those in between are spread evenly
// over what was replaced.
void replace_text(AlignedText& aligned, std::string changed) {
  const std::string& old = aligned.text;
  if (changed == old) return;
  if (!aligned.keeps_origin) {
    aligned.text = std::move(changed);
    return;
  }
  const size_t shortest = std::min(old.size(), changed.size());
  size_t head = 0, tail = 0;
  while (head < shortest && old[head] == changed[head]) ++head;
  while (tail < shortest - head && old[old.size() - 1 - tail] == changed[changed.size() - 1 - tail]) ++tail;
  std::vector<size_t> origin(changed.size());
  const size_t old_middle = old.size() - head - tail, new_middle = changed.size() - head - tail;
  for (size_t i = 0; i < changed.size(); ++i) {
    size_t from = i;
    if (i >= changed.size() - tail) {
      from = old.size() - (changed.size() - i);
    } else if (i >= head) {
      from = head + (old_middle ? std::min(old_middle - 1, (i - head) * old_middle / new_middle) : 0);
      if (old_middle == 0 && from >= old.size()) from = old.size() - 1;
    }
    origin[i] = aligned.origin_of(from);
  }
  aligned.origin = std::move(origin);
  aligned.text = std::move(changed);
}

// Rust's str::to_lowercase, but for Σ at a word's end: single characters, with U+0130 to two.
std::string lower_case(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    append_code_point(lower, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    if (c == 0x130) append_code_point(lower, 0x307);
  }
  return lower;
}

void strip(AlignedText& text, bool left, bool right) {
  static const Regex leading = tokenizer_regex(R"(\A\s+)", "Strip"), trailing = tokenizer_regex(R"(\s+\z)", "Strip");
  size_t begin = 0, end = 0;
  if (right && trailing.find(text.text, 0, begin, end)) text.replace_all({{begin, end}}, "");
  if (left && leading.find(text.text, 0, begin, end)) text.replace_all({{begin, end}}, "");
}

void read_into(const json& description, const std::string& file, std::vector<Normalizer>& normalizers) {
  const std::string type = description.at("type");
  Normalizer normalizer;
  if (type == "Sequence") {
    for (const json& part : description.at("normalizers")) read_into(part, file, normalizers);
    return;
  }
  if (type == "NFC") {
    normalizer.kind = Normalizer::Kind::nfc;
  } else if (type == "NFD") {
    normalizer.kind = Normalizer::Kind::nfd;
  } else if (type == "NFKC") {
    normalizer.kind = Normalizer::Kind::nfkc;
  } else if (type == "NFKD") {
    normalizer.kind = Normalizer::Kind::nfkd;
  } else if (type == "Lowercase") {
    normalizer.kind = Normalizer::Kind::lowercase;
  } else if (type == "Prepend") {
    normalizer.kind = Normalizer::Kind::prepend;
    normalizer.content = description.at("prepend");
  } else if (type == "Strip") {
    normalizer.kind = Normalizer::Kind::strip;
    normalizer.strip_left = description.value("strip_left", true);
    normalizer.strip_right = description.value("strip_right", true);
  } else if (type == "StripAccents") {
    normalizer.kind = Normalizer::Kind::strip_accents;
  } else if (type == "Nmt") {
    normalizer.kind = Normalizer::Kind::nmt;
  } else if (type == "Precompiled") {
    normalizer.kind = Normalizer::Kind::precompiled;
    const auto map = description.at("precompiled_charsmap").get<std::string>();
    normalizer.charsmap.push_back(read_precompiled_charsmap(map, file));
  } else if (type == "BertNormalizer") {
    normalizer.kind = Normalizer::Kind::bert;
    BertNormalization& bert = normalizer.bert;
    bert.clean_text = description.value("clean_text", true);
    bert.handle_chinese_chars = description.value("handle_chinese_chars", true);
    bert.lowercase = description.value("lowercase", true);
    const auto accents = description.find("strip_accents");
    bert.strip_accents = accents == description.end() || accents->is_null() ? bert.lowercase : accents->get<bool>();
  } else if (type == "Replace") {
    const json& pattern = description.at("pattern");
    normalizer.content = description.at("content");
    if (pattern.contains("String")) {
      normalizer.kind = Normalizer::Kind::replace_string;
      normalizer.pattern = pattern.at("String");
    } else {
      normalizer.kind = Normalizer::Kind::replace_regex;
      normalizer.regex.push_back(tokenizer_regex(pattern.at("Regex").get<std::string>(), file + " normalizer Replace"));
    }
  } else {
    throw ConfigError(
        file, "the normalizer '" + type +
                  "' is not supported (NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, StripAccents, Nmt, "
                  "Precompiled, BertNormalizer and Sequence are)");
  }
  normalizers.push_back(std::move(normalizer));
}

}  // namespace

void AlignedText::replace_all(const std::vector<TextPiece>& ranges, std::string_view bytes) {
  replace_ranges(*this, ranges, [&](const TextPiece&) { return bytes; });
}

void AlignedText::replace(const std::vector<Replacement>& replacements) {
  replace_ranges(*this, replacements, [](const Replacement& replacement) { return replacement.bytes; });
}

void AlignedText::prepend(std::string_view bytes) { replace_all({{0, 0}}, bytes); }

void Normalizer::apply(AlignedText& aligned) const {
  if (aligned.text.empty()) return;
  std::vector<TextPiece> ranges;
  switch (kind) {
    case Kind::nfc:
      return replace_text(aligned, compose_text(aligned.text, [](std::string_view stretch) {
                            return normal_form(stretch, utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
                          }));
    case Kind::nfd:
      return replace_text(aligned, normal_form(aligned.text, utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE)));
    case Kind::nfkc:
      return replace_text(
          aligned, normal_form(aligned.text, utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT)));
    case Kind::nfkd:
      return replace_text(aligned, normal_form(aligned.text, utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                                               UTF8PROC_COMPAT)));
    case Kind::lowercase: return replace_text(aligned, lower_case(aligned.text));
    case Kind::prepend: return aligned.prepend(content);
    case Kind::bert: return normalize_as_bert(aligned, bert);
    case Kind::strip: return strip(aligned, strip_left, strip_right);
    case Kind::strip_accents: return strip_accents(aligned);
    case Kind::nmt: return normalize_for_translation(aligned);
    case Kind::precompiled: return charsmap[0].apply(aligned);
    case Kind::replace_string:
      if (pattern.empty()) return;
      for (size_t at = 0; (at = aligned.text.find(pattern, at)) != std::string::npos; at += pattern.size()) {
        ranges.push_back({at, at + pattern.size()});
      }
      return aligned.replace_all(ranges, content);
    case Kind::replace_regex:
      for (size_t from = 0, begin = 0, end = 0;
           from <= aligned.text.size() && regex[0].find(aligned.text, from, begin, end);) {
        if (end > begin) ranges.push_back({begin, end});
        from = end > begin ? end : end < aligned.text.size() ? end + code_point_length(aligned.text[end]) : end + 1;
      }
      return aligned.replace_all(ranges, content);
  }
}

std::vector<Normalizer> read_normalizers(const json& description, const std::string& file) {
  std::vector<Normalizer> normalizers;
  if (!description.is_null()) read_into(description, file, normalizers);
  return normalizers;
}

}  // namespace lathe::data
