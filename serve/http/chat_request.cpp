#include "serve/http/chat_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/json.h"
#include "serve/http/api_error.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

constexpr size_t most_messages = 4096;
constexpr std::array<std::string_view, 5> roles = {"system", "developer", "user", "assistant", "tool"};

std::string joined_parts(const ordered_json& parts, const std::string& name) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part = fmt::format("{}[{}]", name, i);
    const Fields fields(parts[i], part + ".");
    if (fields.text("type") != "text")
      throw bad_field(part, "expected a part of type text; this server reads nothing else, and fetches no URL");
    const ordered_json& value = fields.required("text", "a string");
    if (!value.is_string()) throw bad_field(part + ".text", "expected a string, found " + json_excerpt(value));
    if (i > 0) text += '\n';
    text += value.get<std::string>();
  }
  return text;
}

}  // namespace

ordered_json read_message(const ordered_json& message, const std::string& name) {
  const Fields fields(message, name + ".");
  const ordered_json& role = fields.required("role", "a role");
  if (!role.is_string() || std::ranges::find(roles, role.get_ref<const std::string&>()) == roles.end())
    throw bad_field(name + ".role", "expected system, developer, user, assistant or tool, found " + json_excerpt(role));
  ordered_json read{{"role", role == "developer" ? "system" : role}};
  const bool calls = role == "assistant" && fields.find("tool_calls") != nullptr;
  const ordered_json* content = fields.find("content");
  if (content == nullptr && !calls) throw bad_field(name + ".content", "expected a string or a list of text parts");
  if (content == nullptr) {
    read["content"] = "";
  } else if (content->is_string()) {
    read["content"] = *content;
  } else if (content->is_array()) {
    read["content"] = joined_parts(*content, name + ".content");
  } else {
    throw bad_field(name + ".content", "expected a string or a list of text parts, found " + json_excerpt(*content));
  }
  for (const char* key : {"name", "tool_call_id"})
    if (const auto text = fields.text(key)) read[key] = *text;
  if (role == "assistant")
    for (const char* key : {"reasoning", "reasoning_content"})  // vLLM's and DeepSeek's name for what it thought
      if (const auto text = fields.text(key)) read["reasoning_content"] = *text;
  if (calls) read["tool_calls"] = read_tool_calls(*fields.find("tool_calls"), name + ".tool_calls");
  return read;
}

ordered_json read_messages(const Fields& fields) {
  const ordered_json& messages = fields.required("messages", "a list of messages");
  const std::string name = fields.name_of("messages");
  if (!messages.is_array() || messages.empty() || messages.size() > most_messages)
    throw bad_field(
        name, fmt::format("expected a list of 1 to {} messages, found {}", most_messages, json_excerpt(messages)));
  ordered_json read = ordered_json::array();
  for (size_t i = 0; i < messages.size(); ++i)
    read.push_back(read_message(messages[i], fmt::format("{}[{}]", name, i)));
  return read;
}

void read_chat_options(const Fields& fields, ChatRequest& request) {
  request.add_generation_prompt = fields.boolean("add_generation_prompt").value_or(true);
  request.variables = ordered_json::object();
  if (const ordered_json* variables = fields.find("chat_template_kwargs")) {
    if (!variables->is_object())
      throw bad_field("chat_template_kwargs", "expected an object, found " + json_excerpt(*variables));
    request.variables = *variables;
  }
  request.include_reasoning = fields.boolean("include_reasoning").value_or(true);
}

void add_reasoning_effort(const std::optional<std::string>& effort, ChatRequest& request) {
  if (!effort) return;
  if (!request.variables.contains("reasoning_effort")) request.variables["reasoning_effort"] = *effort;
  if (!request.variables.contains("enable_thinking")) request.variables["enable_thinking"] = *effort != "none";
}

void check_tool_choice(const ChatRequest& request) {
  if (request.tools && request.tools->must_call && (request.settings.grammar || request.settings.ignore_eos))
    throw bad_field("tool_choice", "leaves no room for another form of the answer, or for ignore_eos");
}

ChatRequest read_chat_request(const ordered_json& body, int64_t vocabulary) {
  const Fields fields(body);
  ChatRequest request;
  request.messages = read_messages(fields);
  request.settings = read_generation_settings(fields, vocabulary);
  request.settings.max_tokens = fields.integer("max_completion_tokens", 1, most_max_tokens);
  if (const auto max_tokens = fields.integer("max_tokens", 1, most_max_tokens); !request.settings.max_tokens)
    request.settings.max_tokens = max_tokens;
  const auto top_logprobs = fields.integer("top_logprobs", 0, most_alternatives);
  if (fields.boolean("logprobs").value_or(false)) {
    request.settings.top_logprobs = top_logprobs.value_or(0);
  } else if (top_logprobs.value_or(0) > 0) {
    throw bad_field("top_logprobs", "is only allowed where logprobs is true");
  }
  read_chat_options(fields, request);
  add_reasoning_effort(fields.text("reasoning_effort"), request);
  request.tools = read_tool_request(fields);
  check_tool_choice(request);
  return request;
}

}  // namespace lathe::http
