#include "data/tokenizer/precompiled_charsmap.h"

#include <utf8proc.h>

#include <algorithm>

#include "core/error.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

constexpr size_t longest_replaced_grapheme = 5;  // bytes

bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t label(uint32_t unit) { return unit & 0x800000FF; }  // a value's unit has bit 31, and so no byte for a label
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }

uint32_t little_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

// What utf8proc does not know: marks of Unicode 16 and 17, which break as any mark does, and unassigned characters
// without a shape, which break as controls do.
utf8proc_int32_t as_known(char32_t c) {
  if (c == 0x897 || (c >= 0x1ACF && c <= 0x1ADD) || (c >= 0x1AE0 && c <= 0x1AEB)) return 0x301;
  if (c == 0x2065 || (c >= 0xFFF0 && c <= 0xFFF8)) return 0x200E;
  return static_cast<utf8proc_int32_t>(c);
}

size_t end_of_grapheme(std::string_view text, size_t begin) {
  size_t at = begin;
  utf8proc_int32_t state = 0;
  for (utf8proc_int32_t left = as_known(next_code_point(text, at)); at < text.size();) {
    size_t next = at;
    const utf8proc_int32_t right = as_known(next_code_point(text, next));
    if (utf8proc_grapheme_break_stateful(left, right, &state)) break;
    left = right;
    at = next;
  }
  return at;
}

int sextet(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// The standard alphabet, with padding; nothing where the text is not that.
std::optional<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    const int value = sextet(c);
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xFF);
  }
  return bytes;
}

}  // namespace

PrecompiledCharsmap::PrecompiledCharsmap(std::string_view bytes, const std::string& file) {
  const auto fail = [&](const std::string& reason) { throw FormatError(file, -1, "precompiled_charsmap " + reason); };
  if (bytes.size() < 4) fail("has " + std::to_string(bytes.size()) + " bytes, fewer than the size of its trie takes");
  const uint32_t trie_bytes = little_endian(bytes);
  if (trie_bytes % 4 != 0 || trie_bytes == 0 || trie_bytes > bytes.size() - 4)
    fail("says that its trie has " + std::to_string(trie_bytes) + " bytes, of " + std::to_string(bytes.size() - 4) +
         " that follow, in units of 4");
  units_.reserve(trie_bytes / 4);
  for (size_t at = 4; at < 4 + size_t{trie_bytes}; at += 4) units_.push_back(little_endian(bytes.substr(at, 4)));
  replacements_ = bytes.substr(4 + size_t{trie_bytes});
  if (!is_valid_utf8(replacements_)) fail("has replacements that are not UTF-8");
  check(file);
  for (size_t c = 0; c < kept_.size(); ++c) {
    const auto byte = static_cast<char>(c);
    kept_[c] = !replacement({&byte, 1});
  }
}

// Every node that some key reaches has room for all its children, and every value is a place where a character begins:
// look-ups need not check that again.
void PrecompiledCharsmap::check(const std::string& file) const {
  std::vector<bool> seen(units_.size());
  std::vector<uint32_t> open;
  const auto reach = [&](uint32_t node) {
    if ((uint64_t{node} | 0xFF) >= units_.size())
      throw FormatError(file, -1,
                        "precompiled_charsmap: its trie leads to unit " + std::to_string(uint64_t{node} | 0xFF) +
                            ", but has " + std::to_string(units_.size()));
    if (seen[node]) return;
    seen[node] = true;
    open.push_back(node);
  };
  reach(offset(units_[0]));
  while (!open.empty()) {
    const uint32_t node = open.back();
    open.pop_back();
    for (uint32_t byte = 1; byte < 256; ++byte) {  // a NUL is in no key
      const uint32_t child = node ^ byte, unit = units_[child];
      if (label(unit) != byte) continue;
      const uint32_t next = child ^ offset(unit);
      reach(next);
      if (!has_leaf(unit)) continue;
      const uint32_t value = value_of(next);
      if (value > replacements_.size() ||
          (value < replacements_.size() && (static_cast<unsigned char>(replacements_[value]) & 0xC0) == 0x80))
        throw FormatError(file, -1,
                          "precompiled_charsmap: a key's replacement is to begin at byte " + std::to_string(value) +
                              " of " + std::to_string(replacements_.size()) + ", where no character does");
    }
  }
}

std::string_view PrecompiledCharsmap::replacement_at(uint32_t value) const {
  const std::string_view from = std::string_view(replacements_).substr(value);
  return from.substr(0, from.find('\0'));
}

std::optional<std::string_view> PrecompiledCharsmap::replacement(std::string_view text) const {
  uint32_t node = offset(units_[0]);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    node ^= byte;
    const uint32_t unit = units_[node];
    if (label(unit) != byte) break;
    node ^= offset(unit);
    if (has_leaf(unit)) return replacement_at(value_of(node));
  }
  return std::nullopt;
}

// take(begin, end, replacement) for each part that something stands for, in order.
template <class Take>
void PrecompiledCharsmap::parts_of(std::string_view text, const Take& take) const {
  for (size_t at = 0; at < text.size();) {
    // Two ASCII characters never make one grapheme, but for a line's end in two.
    const bool alone = is_ascii(text[at]) && (at + 1 == text.size() || (is_ascii(text[at + 1]) && text[at] != '\r'));
    if (alone && kept_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const size_t end = alone ? at + 1 : end_of_grapheme(text, at);
    const std::string_view grapheme = text.substr(at, end - at);
    if (grapheme.size() <= longest_replaced_grapheme) {
      if (const auto whole = replacement(grapheme)) {
        take(at, end, *whole);
        at = end;
        continue;
      }
    }
    while (at < end) {
      const size_t next = at + code_point_length(text[at]);
      if (const auto character = replacement(text.substr(at, next - at))) take(at, next, *character);
      at = next;
    }
  }
}

void PrecompiledCharsmap::apply(AlignedText& text) const {
  std::vector<AlignedText::Replacement> replaced;
  parts_of(text.text, [&](size_t begin, size_t end, std::string_view bytes) {
    if (text.text.compare(begin, end - begin, bytes) != 0) replaced.push_back({begin, end, bytes});
  });
  text.replace(replaced);
}

PrecompiledCharsmap read_precompiled_charsmap(std::string_view base64, const std::string& file) {
  const auto bytes = from_base64(base64);
  if (!bytes) throw FormatError(file, -1, "the normalizer's precompiled_charsmap is not base64");
  return {*bytes, file};
}

}  // namespace lathe::data
