// Regular expressions as tokenizer.json means them (Oniguruma over Unicode 16), matched by PCRE2's compiler to
// machine code.
#pragma once

#include <string>
#include <string_view>

#include "core/regex.h"

namespace lathe::data {

// Throws ConfigError, with `where` as the pattern's name, for a pattern that PCRE2 cannot read.
Regex tokenizer_regex(std::string_view pattern, const std::string& where);

// The pattern rewritten where PCRE2 10.42 and Oniguruma read a class differently: \s, \S (U+180E is no space any
// more) and \p{L}, \p{N}, \p{M} (characters newer than Unicode 14).
std::string as_pcre2_pattern(std::string_view pattern);

}  // namespace lathe::data
