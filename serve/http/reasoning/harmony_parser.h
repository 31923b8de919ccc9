// Answers of gpt-oss, in OpenAI's Harmony format. An answer is a list of messages, each a head, <|message|> and a text:
//   <|channel|>analysis<|message|>what the model thinks<|end|>
//   <|start|>assistant<|channel|>final<|message|>what it says<|return|>
//   <|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>
// A message of the channel commentary that goes to nobody is said before a call. The marks are control tokens.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "serve/http/answer_parts.h"
#include "serve/http/tools/json_extent.h"
#include "serve/http/tools/tool_call_parser.h"

namespace lathe::http {

// Joined, what is told does not depend on how the text was cut into pieces. Messages of one kind are told with an empty
// line between them. A call of a function that is not known, or without an object, is content.
class HarmonyParser {
 public:
  // The prompt ends with the beginning of the first message's head.
  explicit HarmonyParser(std::optional<ToolCallSettings> calls) : calls_(std::move(calls)) {}
  AnswerParts push(std::string_view text);
  AnswerParts finish();
  bool called() const { return call_count_ > 0; }
  bool thinking() const { return place_ == Place::reasoning; }

 private:
  enum class Place { head, reasoning, content, call };
  bool read(AnswerParts& parts);
  bool read_head(AnswerParts& parts);
  bool read_text(AnswerParts& parts);
  void begin_message(std::string_view head);
  void take(std::string_view text, AnswerParts& parts);
  void take_arguments(std::string_view text, AnswerParts& parts);
  void say(std::string_view text, std::string& to, bool& any);

  const std::optional<ToolCallSettings> calls_;
  Place place_ = Place::head;
  std::string held_;   // not read yet
  bool last_ = false;  // no more text comes
  bool fresh_ = true;  // nothing of the message's text has been told
  bool any_reasoning_ = false, any_content_ = false;
  // Of the call that is read.
  std::string function_;
  JsonExtent extent_;
  bool arguments_end_ = false;
  size_t call_count_ = 0;
};

}  // namespace lathe::http
