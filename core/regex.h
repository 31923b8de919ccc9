// Regular expressions of PCRE2, over UTF-8, with a bound on the steps of a match.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace lathe {

struct RegexOptions {
  bool multiline = false;      // ^ and $ at every line
  bool machine_code = false;   // compiled to it: pays where a pattern is matched very often
  uint32_t steps = 1'000'000;  // of backtracking in one match
};

class Regex {
 public:
  // `where` names the pattern in errors. Throws ConfigError for a pattern that PCRE2 cannot read.
  Regex(const std::string& pattern, const std::string& where, const RegexOptions& options = {});
  ~Regex();
  Regex(Regex&&) noexcept;

  // The next match at or after `from` in valid UTF-8. False where there is none. Throws ConfigError where a match needs
  // more than the allowed steps (the pattern is then of exponential cost).
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const;
  // Whether all of the text matches, as Python's re.fullmatch.
  bool matches_all(std::string_view text) const;
  // The group of that name in the first match that begins at the text's start, as Python's re.match; nothing where
  // there is none.
  bool match_group(std::string_view text, const char* group, std::string& found) const;

 private:
  struct Compiled;
  int run(std::string_view text, size_t from, uint32_t flags) const;
  std::unique_ptr<Compiled> compiled_;
};

// A pattern of Python's re module as PCRE2 reads it: \Z is the very end, {,n} is {0,n}.
std::string python_pattern(std::string_view pattern);

}  // namespace lathe
