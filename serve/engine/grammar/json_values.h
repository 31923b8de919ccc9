// The values of JSON as parts of a grammar. Internal to this folder.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "serve/engine/grammar/grammar.h"

namespace lathe::engine {

// Nothing, one space, or a line break and at most 16 blanks: what lies between tokens. (Without an end a model might
// write blanks for ever.)
GrammarBuilder::Part json_blank(GrammarBuilder& builder);

// Between the quotes: any text of least … most characters; most < 0: without end.
GrammarBuilder::Part json_string(GrammarBuilder& builder, int64_t least = 0, int64_t most = -1);
// A string that is none of `names`, and holds no escape (by which it might be one of them).
GrammarBuilder::Part json_string_other_than(GrammarBuilder& builder, const std::vector<std::string>& names);

// Both bounds inclusive; none: 15 digits, which a double holds exactly.
struct NumberBounds {
  std::optional<int64_t> least, most;
};
inline constexpr int64_t most_integer = 999'999'999'999'999;
GrammarBuilder::Part json_integer(GrammarBuilder& builder, const NumberBounds& bounds);
// At most 15 digits before and after the point; an exponent of two digits where there are no bounds.
GrammarBuilder::Part json_number(GrammarBuilder& builder, const NumberBounds& bounds);

// {…} and […] around members that are separated by commas; how many there may be is said by whoever links them.
// least … most times what `make` makes, most < 0: without end.
GrammarBuilder::Part json_list(GrammarBuilder& builder, int64_t least, int64_t most,
                               const std::function<GrammarBuilder::Part()>& make);

// Two rules that call each other: any value, and any object.
struct AnyJson {
  int32_t value, object;
};
AnyJson define_any_json(GrammarBuilder& builder);

}  // namespace lathe::engine
