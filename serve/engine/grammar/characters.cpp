#include "serve/engine/grammar/characters.h"

#include <algorithm>
#include <array>
#include <string>

namespace lathe::engine {
namespace {

using Part = GrammarBuilder::Part;

constexpr CharacterRange surrogates{0xD800, 0xDFFF};

int utf8_length(uint32_t character) {
  return character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
}

std::array<uint8_t, 4> utf8_bytes(uint32_t character) {
  const auto tail = [&](int shift) { return static_cast<uint8_t>(0x80 | (character >> shift & 0x3F)); };
  switch (utf8_length(character)) {
    case 1: return {static_cast<uint8_t>(character)};
    case 2: return {static_cast<uint8_t>(0xC0 | character >> 6), tail(0)};
    case 3: return {static_cast<uint8_t>(0xE0 | character >> 12), tail(6), tail(0)};
    default: return {static_cast<uint8_t>(0xF0 | character >> 18), tail(12), tail(6), tail(0)};
  }
}

// Cuts a range of characters of one length into pieces whose bytes are ranges independently of each other.
void add_pieces(GrammarBuilder& builder, uint32_t first, uint32_t last, std::vector<Part>& parts) {
  const int length = utf8_length(first);
  for (int i = 1; i < length; ++i) {
    const uint32_t mask = (1u << (6 * i)) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      add_pieces(builder, first, first | mask, parts);
      return add_pieces(builder, (first | mask) + 1, last, parts);
    }
    if ((last & mask) != mask) {
      add_pieces(builder, first, (last & ~mask) - 1, parts);
      return add_pieces(builder, last & ~mask, last, parts);
    }
  }
  const auto low = utf8_bytes(first), high = utf8_bytes(last);
  std::vector<Part> bytes;
  for (size_t i = 0; i < static_cast<size_t>(length); ++i) bytes.push_back(builder.byte_range(low[i], high[i]));
  parts.push_back(builder.sequence(bytes));
}

Part hexadecimal(GrammarBuilder& builder, uint32_t character) {
  std::vector<Part> digits{builder.text("\\u00")};
  for (const uint32_t digit : {character >> 4, character & 15}) {
    const char lower = "0123456789abcdef"[digit], upper = "0123456789ABCDEF"[digit];
    digits.push_back(lower == upper ? builder.text({&lower, 1})
                                    : builder.any_of({builder.text({&lower, 1}), builder.text({&upper, 1})}));
  }
  return builder.sequence(digits);
}

// The same for every set: a text of many characters takes a call for each.
std::string name_of_set(const char* spelling, const Characters& characters) {
  std::string name = spelling;
  for (const auto& [first, last] : characters) name += " " + std::to_string(first) + "-" + std::to_string(last);
  return name;
}

Part utf8_bytes_of(GrammarBuilder& builder, const Characters& characters) {
  std::vector<Part> parts;
  for (CharacterRange range : characters) {
    for (const uint32_t end : {0x7Fu, 0x7FFu, 0xFFFFu, last_character}) {
      if (range.first > end || range.first > range.last) continue;
      add_pieces(builder, range.first, std::min(range.last, end), parts);
      range.first = end + 1;
    }
  }
  return builder.any_of(parts);
}

}  // namespace

Characters every_character() { return {{0, surrogates.first - 1}, {surrogates.last + 1, last_character}}; }

Characters united(Characters a, const Characters& b) {
  a.insert(a.end(), b.begin(), b.end());
  std::sort(a.begin(), a.end(), [](const auto& x, const auto& y) { return x.first < y.first; });
  Characters result;
  for (const CharacterRange& range : a) {
    if (!result.empty() && range.first <= result.back().last + 1) {
      result.back().last = std::max(result.back().last, range.last);
    } else {
      result.push_back(range);
    }
  }
  return without(result, {surrogates});
}

Characters complement(const Characters& characters) { return without(every_character(), characters); }

Characters without(const Characters& from, const Characters& what) {
  Characters result;
  for (CharacterRange range : from) {
    bool left = true;
    for (const CharacterRange& gone : what) {
      if (gone.last < range.first || gone.first > range.last) continue;
      if (gone.first > range.first) result.push_back({range.first, gone.first - 1});
      left = gone.last < range.last;
      if (!left) break;
      range.first = gone.last + 1;
    }
    if (left) result.push_back(range);
  }
  return result;
}

std::vector<uint32_t> characters_of(std::string_view text, const GrammarBuilder& builder) {
  std::vector<uint32_t> characters;
  for (size_t at = 0; at < text.size();) {
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0u; };
    const uint32_t lead = byte(at);
    const size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    uint32_t character = length == 1 ? lead : lead & (0x7Fu >> length);
    for (size_t i = 1; i < length; ++i) character = character << 6 | (byte(at + i) & 0x3F);
    // Spelled again, it must be what is there: that finds every kind of broken UTF-8.
    const bool in_range =
        character <= last_character && !(character >= surrogates.first && character <= surrogates.last);
    const auto again = utf8_bytes(in_range ? character : 0);
    if (!in_range || utf8_length(character) != static_cast<int>(length) || at + length > text.size() ||
        !std::equal(again.begin(), again.begin() + static_cast<int64_t>(length),
                    text.begin() + static_cast<int64_t>(at),
                    [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); }))
      builder.fail("is not valid UTF-8 at byte " + std::to_string(at));
    characters.push_back(character);
    at += length;
  }
  return characters;
}

Part utf8_character(GrammarBuilder& builder, const Characters& characters) {
  if (characters.empty() || characters.back().last < 0x80) return utf8_bytes_of(builder, characters);
  return builder.call(name_of_set("utf8", characters), [&] { return utf8_bytes_of(builder, characters); });
}

Characters plain_json_characters() { return complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}); }

namespace {

Part json_spellings_of(GrammarBuilder& builder, const Characters& characters) {
  const Characters escaped = without(characters, plain_json_characters());
  std::vector<Part> parts{utf8_character(builder, without(characters, escaped))};
  for (const CharacterRange& range : escaped) {
    for (uint32_t character = range.first; character <= range.last; ++character) {
      static constexpr std::string_view named = "\"\\\b\f\n\r\t", names = "\"\\bfnrt";
      const size_t at = named.find(static_cast<char>(character));
      if (at != std::string_view::npos) {
        parts.push_back(builder.text(std::string("\\") + names[at]));
      } else {
        parts.push_back(hexadecimal(builder, character));
      }
    }
  }
  return builder.any_of(parts);
}

}  // namespace

Part json_character(GrammarBuilder& builder, const Characters& characters) {
  if (characters.size() == 1 && characters[0].first == characters[0].last)
    return json_spellings_of(builder, characters);
  return builder.call(name_of_set("json", characters), [&] { return json_spellings_of(builder, characters); });
}

}  // namespace lathe::engine
