#include "serve/http/reasoning/reasoning_parser.h"

#include <utility>

#include "serve/http/text_marks.h"

namespace lathe::http {

ReasoningParser::ReasoningParser(ReasoningMarks marks, bool begun)
    : marks_(marks), state_(begun ? State::thinking : State::before) {}

ReasoningParser::Told ReasoningParser::push(std::string_view text) {
  Told told;
  held_ += text;
  while (read(told)) {
  }
  return told;
}

ReasoningParser::Told ReasoningParser::finish() {
  last_ = true;
  return push({});
}

bool ReasoningParser::read(Told& told) {
  switch (state_) {
    case State::before: return read_before();
    case State::thinking: return read_thought(told);
    case State::after:
      held_.erase(0, first_other_than_blank(held_));
      if (held_.empty()) return false;
      state_ = State::content;
      return true;
    case State::content: told.content += std::exchange(held_, {}); return false;
  }
  return false;
}

bool ReasoningParser::read_before() {
  const size_t first = first_other_than_blank(held_);
  const std::string_view rest = std::string_view(held_).substr(first);
  if (rest.starts_with(marks_.open)) {
    held_.erase(0, first + marks_.open.size());
    state_ = State::thinking;
    return true;
  }
  if (!last_ && marks_.open.starts_with(rest)) return false;
  state_ = State::content;
  return true;
}

bool ReasoningParser::read_thought(Told& told) {
  if (!any_reasoning_) held_.erase(0, first_other_than_blank(held_));
  const size_t mark = held_.find(marks_.close);
  const bool closed = mark != std::string::npos;
  const size_t kept = last_ ? 0 : begun_mark(held_, marks_.close);
  const size_t shown = without_blanks_at_end(std::string_view(held_).substr(0, closed ? mark : held_.size() - kept));
  told.reasoning += held_.substr(0, shown);
  any_reasoning_ = any_reasoning_ || shown > 0;
  held_.erase(0, closed ? mark + marks_.close.size() : shown);
  if (closed) state_ = State::after;
  return closed;
}

}  // namespace lathe::http
