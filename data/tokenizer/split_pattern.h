// A pattern that cuts texts into words, by an automaton where there is one for it, else by PCRE2.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/tokenizer/regex.h"
#include "data/tokenizer/split_automaton.h"

namespace lathe::data {

class SplitPattern {
 public:
  // A pattern as tokenizer.json means it. Throws ConfigError, with `where` as its name, for one that cannot be read.
  SplitPattern(std::string_view pattern, const std::string& where);

  // The next match at or after `from` in valid UTF-8; false where there is none.
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const;
  bool has_automaton() const { return automaton_ != nullptr; }

 private:
  Regex regex_;
  std::unique_ptr<const SplitAutomaton> automaton_;
};

}  // namespace lathe::data
