// Sets of characters, each written as a piece of a regular expression that matches one character, and which of them
// every character is in.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/regex.h"

namespace lathe::data {

class CharacterSets {
 public:
  static constexpr size_t most = 64;          // sets: a bit each
  static constexpr char32_t page_size = 256;  // characters that are looked at together

  // At most `most` patterns of PCRE2 ("[^\s\p{L}]", "(?i)s"), which answers for them: sets cannot mean another thing
  // here than in the whole pattern that they come from.
  explicit CharacterSets(const std::vector<std::string>& patterns);

  // A bit for each set that the character page · 256 + i is in; surrogates are in none.
  std::array<uint64_t, page_size> members_of_page(char32_t page) const;

 private:
  std::vector<Regex> sets_;  // runs of members
};

}  // namespace lathe::data
