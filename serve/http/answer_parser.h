// An answer that comes in pieces, told apart into what the model thinks, what it says, and calls of functions.
#pragma once

#include <optional>
#include <string_view>

#include "serve/http/answer_parts.h"
#include "serve/http/reasoning/harmony_parser.h"
#include "serve/http/reasoning/reasoning_parser.h"
#include "serve/http/tools/tool_call_parser.h"

namespace lathe::http {

struct AnswerReading {
  std::optional<ToolCallSettings> calls = {};    // without them calls are content
  std::optional<ReasoningMarks> reasoning = {};  // without them thoughts are content
  bool begins_thinking = false;                  // the prompt ends within a thought
  bool harmony = false;                          // in place of `reasoning`
  bool shows_reasoning = true;                   // false: thoughts are left out
  bool tells_parts() const { return calls || reasoning || harmony; }
};

class AnswerParser {
 public:
  explicit AnswerParser(const AnswerReading& reading);
  // `tokens`: how many the text is made of.
  AnswerParts push(std::string_view text, size_t tokens);
  AnswerParts finish();
  bool called() const;
  int64_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  AnswerParts read(std::string_view text, bool last);
  bool thinking() const { return harmony_ ? harmony_->thinking() : reasoning_ && reasoning_->thinking(); }

  std::optional<HarmonyParser> harmony_;
  std::optional<ReasoningParser> reasoning_;
  std::optional<ToolCallParser> calls_;
  bool shows_reasoning_;
  int64_t reasoning_tokens_ = 0;
};

}  // namespace lathe::http
