#include "data/tokenizer/split_pattern.h"

namespace lathe::data {

SplitPattern::SplitPattern(std::string_view pattern, const std::string& where)
    : regex_(tokenizer_regex(pattern, where)) {
  if (auto program = pattern_program(as_pcre2_pattern(pattern)))
    automaton_ = std::make_unique<const SplitAutomaton>(std::move(*program));
}

bool SplitPattern::find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  using Found = SplitAutomaton::Found;
  const Found found = automaton_ ? automaton_->find(text, from, begin, end) : Found::too_large;
  return found == Found::too_large ? regex_.find(text, from, begin, end) : found == Found::match;
}

}  // namespace lathe::data
