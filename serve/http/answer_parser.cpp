#include "serve/http/answer_parser.h"

#include <utility>

namespace lathe::http {

AnswerParser::AnswerParser(const AnswerReading& reading) : shows_reasoning_(reading.shows_reasoning) {
  if (reading.harmony) {
    harmony_.emplace(reading.calls);
    return;
  }
  if (reading.reasoning) reasoning_.emplace(*reading.reasoning, reading.begins_thinking);
  if (reading.calls) calls_.emplace(*reading.calls);
}

AnswerParts AnswerParser::push(std::string_view text, size_t tokens) {
  const bool before = thinking();
  AnswerParts parts = read(text, false);
  if (before || thinking()) reasoning_tokens_ += static_cast<int64_t>(tokens);
  return parts;
}

AnswerParts AnswerParser::finish() { return read({}, true); }

AnswerParts AnswerParser::read(std::string_view text, bool last) {
  AnswerParts parts;
  if (harmony_) {
    parts = last ? harmony_->finish() : harmony_->push(text);
  } else if (reasoning_) {
    ReasoningParser::Told told = last ? reasoning_->finish() : reasoning_->push(text);
    parts.reasoning = std::move(told.reasoning);
    parts.content = std::move(told.content);
  } else {
    parts.content = text;
  }
  if (!shows_reasoning_) parts.reasoning.clear();
  if (!calls_) return parts;
  ToolAnswer answer = calls_->push(std::exchange(parts.content, {}));
  parts.content = std::move(answer.content);
  parts.calls = std::move(answer.calls);
  if (!last) return parts;
  ToolAnswer rest = calls_->finish();
  parts.content += rest.content;
  parts.calls.insert(parts.calls.end(), rest.calls.begin(), rest.calls.end());
  return parts;
}

bool AnswerParser::called() const { return harmony_ ? harmony_->called() : calls_ && calls_->called(); }

}  // namespace lathe::http
