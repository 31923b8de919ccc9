// What a model thinks and what it says, in an answer that comes in pieces: thoughts stand between two marks, first.
#pragma once

#include <string>
#include <string_view>

#include "serve/http/reasoning/reasoning_format.h"

namespace lathe::http {

// Joined, what is told does not depend on how the text was cut into pieces. Blanks around thoughts belong to neither;
// an answer that is cut within a thought has no content.
class ReasoningParser {
 public:
  // `begun`: the prompt ends within a thought, whose opening mark it has.
  ReasoningParser(ReasoningMarks marks, bool begun);

  struct Told {
    std::string reasoning, content;
  };
  Told push(std::string_view text);
  Told finish();  // when no more text comes
  bool thinking() const { return state_ == State::thinking; }

 private:
  enum class State { before, thinking, after, content };
  // Each takes what it can of held_ and answers whether another state may go on with the rest.
  bool read(Told& told);
  bool read_before();
  bool read_thought(Told& told);

  const ReasoningMarks marks_;
  State state_;
  std::string held_;            // not told yet
  bool any_reasoning_ = false;  // something other than blanks has come
  bool last_ = false;           // no more text comes
};

}  // namespace lathe::http
