// The body of /v1/chat/completions, and the messages of /tokenize.
#pragma once

#include "core/json_value.h"
#include "data/chat_template/chat_template.h"
#include "serve/http/generation_settings.h"
#include "serve/http/tools/tool_request.h"

namespace lathe::http {

struct ChatRequest {
  GenerationSettings settings;
  nlohmann::ordered_json messages;   // role and content (a string, or null) checked; what templates read beside stays
  nlohmann::ordered_json variables;  // chat_template_kwargs, an object
  bool add_generation_prompt = true;
  bool include_reasoning = true;
  std::optional<ToolRequest> tools;
};

// ApiError for the first field that is wrong.
ChatRequest read_chat_request(const nlohmann::ordered_json& body, int64_t vocabulary);

// chat_template_kwargs, add_generation_prompt and include_reasoning.
void read_chat_options(const Fields& fields, ChatRequest& request);
// How much a model shall think: "none", "low", "medium", … as templates read it, in reasoning_effort and
// enable_thinking, unless the request's variables say these themselves.
void add_reasoning_effort(const std::optional<std::string>& effort, ChatRequest& request);
// ApiError where calls that must be made leave no room for what else the request asks.
void check_tool_choice(const ChatRequest& request);

// One message, named `name` in errors.
nlohmann::ordered_json read_message(const nlohmann::ordered_json& message, const std::string& name);
// Messages as templates read them: lists of text parts joined by line ends, developer called system. ApiError for
// anything but an array of objects with a known role and text.
nlohmann::ordered_json read_messages(const Fields& fields);

}  // namespace lathe::http
