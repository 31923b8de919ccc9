// The output of a response as it grows, item by item: thoughts, messages of the assistant and calls of functions; and
// the events that tell a client of each step.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/json_value.h"
#include "serve/http/answer_parts.h"
#include "serve/http/choice.h"

namespace lathe::http {

// Events, numbered as they are written.
class ResponseEvents {
 public:
  void add(const char* type, const nlohmann::ordered_json& data);
  std::string take() { return std::exchange(text_, {}); }

 private:
  std::string text_;
  int64_t next_ = 0;
};

class OutputItems {
 public:
  OutputItems(std::shared_ptr<const data::Tokenizer> tokenizer, bool logprobs, ResponseEvents& events);

  void add_text(const std::string& text, std::span<const AnsweredToken> tokens);
  void add_reasoning(const std::string& text);
  void add_call(const ToolCallDelta& call);
  // The item that grows is whole; `status` is "completed", or "incomplete" where the answer was cut.
  void close(const char* status);
  const nlohmann::ordered_json& items() const { return items_; }

 private:
  void open(nlohmann::ordered_json item);
  void open_part(nlohmann::ordered_json part);
  void close_text();
  void close_reasoning();
  void close_call();
  nlohmann::ordered_json& item() { return items_.back(); }
  nlohmann::ordered_json place() const;  // item_id and output_index of what grows
  nlohmann::ordered_json place_of_text() const;

  std::shared_ptr<const data::Tokenizer> tokenizer_;
  bool logprobs_;
  ResponseEvents& events_;
  nlohmann::ordered_json items_ = nlohmann::ordered_json::array();
  enum class Open { nothing, reasoning, text, call } open_ = Open::nothing;
};

}  // namespace lathe::http
