// Regular expressions as parts of a grammar. Internal to this folder.
#pragma once

#include <functional>
#include <string_view>

#include "serve/engine/grammar/characters.h"
#include "serve/engine/grammar/grammar.h"

namespace lathe::engine {

// How one character of a set is spelled.
using SpellCharacter = std::function<GrammarBuilder::Part(GrammarBuilder&, const Characters&)>;
// `whole`: the expression matches all of the text. `anywhere`: some of it, as JSON Schema's pattern, unless ^ and $ say
// otherwise.
enum class RegexMatch { whole, anywhere };
GrammarBuilder::Part regex_part(GrammarBuilder& builder, std::string_view pattern, RegexMatch match,
                                const SpellCharacter& spell);

}  // namespace lathe::engine
