// Sets of Unicode characters, and how a text or a JSON string spells them. Internal to this folder.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "serve/engine/grammar/grammar.h"

namespace lathe::engine {

struct CharacterRange {
  uint32_t first, last;
};
using Characters = std::vector<CharacterRange>;  // ascending, disjoint, without surrogates

inline constexpr uint32_t last_character = 0x10FFFF;
Characters every_character();
Characters united(Characters a, const Characters& b);
Characters complement(const Characters& characters);
Characters without(const Characters& from, const Characters& what);  // from − what

// The characters of valid UTF-8; builder.fail() for anything else.
std::vector<uint32_t> characters_of(std::string_view text, const GrammarBuilder& builder);

// One character of the set, as UTF-8.
GrammarBuilder::Part utf8_character(GrammarBuilder& builder, const Characters& characters);
// One character of the set between the quotes of a JSON string: itself, or its escape where JSON wants one.
GrammarBuilder::Part json_character(GrammarBuilder& builder, const Characters& characters);
// The characters that a JSON string holds without an escape.
Characters plain_json_characters();

}  // namespace lathe::engine
