// Regular expressions as tokenizer.json means them (Oniguruma over Unicode 16), matched by PCRE2's compiler to
// machine code.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace lathe::data {

class Regex {
 public:
  // `where` names the pattern in errors. Throws ConfigError for a pattern that PCRE2 cannot read.
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;

  // The next match at or after `from` in valid UTF-8. False where there is none. Throws ConfigError where the
  // pattern needs more than a fixed number of steps (it is then of exponential cost).
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

// The pattern rewritten where PCRE2 10.42 and Oniguruma read a class differently: \s, \S (U+180E is no space any
// more) and \p{L}, \p{N}, \p{M} (characters newer than Unicode 14).
std::string as_pcre2_pattern(std::string_view pattern);

}  // namespace lathe::data
