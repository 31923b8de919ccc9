// A regular expression as steps over characters (Thompson 1968), for the patterns that cut texts into words: sets of
// characters, alternatives, groups, counted and greedy repetition, and a look at one character ahead.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::data {

struct PatternStep {
  enum class Kind {
    character,   // takes one character of `set`
    expect,      // goes on where the next character is of `set`
    expect_not,  // where it is not, or the text ends
    fork,        // tries `next`, then `other`
    match
  };
  Kind kind;
  uint32_t set = 0;
  uint32_t next = 0, other = 0;
};

struct PatternProgram {
  std::vector<PatternStep> steps;
  std::vector<std::string> sets;  // patterns of PCRE2 that match one character
  uint32_t start = 0;
};

// Of a pattern as PCRE2 reads it. Nothing where it has more to it than is said above, may match an empty text, or is
// very large.
std::optional<PatternProgram> pattern_program(std::string_view pattern);

}  // namespace lathe::data
