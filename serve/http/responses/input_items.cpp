#include "serve/http/responses/input_items.h"

#include <fmt/format.h>

#include <utility>

#include "core/json.h"
#include "serve/http/api_error.h"
#include "serve/http/chat_request.h"
#include "serve/http/tools/tool_request.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

constexpr size_t most_items = 4096;

// A text, or parts whose types are the Responses API's, with those of chats.
ordered_json content_of(const ordered_json& content) {
  ordered_json read = content;
  if (read.is_array())
    for (ordered_json& part : read)
      if (part.is_object() &&
          (part.value("type", ordered_json()) == "input_text" || part.value("type", ordered_json()) == "output_text"))
        part["type"] = "text";
  return read;
}

ordered_json read_message_item(const ordered_json& item, const std::string& name) {
  ordered_json message{{"role", item.value("role", ordered_json())}};
  if (item.contains("content")) message["content"] = content_of(item["content"]);
  return read_message(message, name);
}

// The texts of its content; a summary alone, or one that a provider has encrypted, is nothing.
std::string read_reasoning_item(const Fields& item, const std::string& name) {
  std::string text;
  const ordered_json* content = item.find("content");
  if (content == nullptr) return text;
  if (!content->is_array())
    throw bad_field(item.name_of("content"), "expected a list, found " + json_excerpt(*content));
  for (size_t i = 0; i < content->size(); ++i)
    text += Fields((*content)[i], fmt::format("{}.content[{}].", name, i)).text("text").value_or("");
  return text;
}

void read_call_item(const Fields& item, const std::string& name, ordered_json& messages) {
  const auto text = [&](const char* key) {
    const ordered_json& value = item.required(key, "a string");
    if (!value.is_string()) throw bad_field(item.name_of(key), "expected a string, found " + json_excerpt(value));
    return value;
  };
  ordered_json call{
      {"id", text("call_id")},
      {"type", "function"},
      {"function",
       {{"name", text("name")},
        {"arguments", read_call_arguments(item.required("arguments", "a string of JSON"), name + ".arguments")}}}};
  if (messages.empty() || messages.back()["role"] != "assistant")
    messages.push_back({{"role", "assistant"}, {"content", ""}});
  ordered_json& calls = messages.back()["tool_calls"];
  if (calls.is_null()) calls = ordered_json::array();
  calls.push_back(std::move(call));
}

ordered_json read_output_item(const Fields& item, const std::string& name) {
  const ordered_json& output = item.required("output", "a string or a list of text parts");
  const ordered_json message{{"role", "tool"},
                             {"tool_call_id", item.required("call_id", "the id of a call")},
                             {"content", content_of(output)}};
  return read_message(message, name);
}

}  // namespace

ordered_json read_input(const Fields& fields) {
  ordered_json messages = ordered_json::array();
  if (const auto instructions = fields.text("instructions"))
    messages.push_back({{"role", "system"}, {"content", *instructions}});
  const ordered_json& input = fields.required("input", "a text or a list of items");
  if (input.is_string()) {
    messages.push_back({{"role", "user"}, {"content", input}});
    return messages;
  }
  if (!input.is_array() || input.empty() || input.size() > most_items)
    throw bad_field(
        "input", fmt::format("expected a text or a list of 1 to {} items, found {}", most_items, json_excerpt(input)));
  std::string reasoning;  // of the message or call that comes next
  for (size_t i = 0; i < input.size(); ++i) {
    const std::string name = fmt::format("input[{}]", i);
    const Fields item(input[i], name + ".");
    const std::string type = item.text("type").value_or("message");
    if (type == "message") {
      messages.push_back(read_message_item(input[i], name));
    } else if (type == "function_call") {
      read_call_item(item, name, messages);
    } else if (type == "function_call_output") {
      messages.push_back(read_output_item(item, name));
    } else if (type == "reasoning") {
      reasoning += read_reasoning_item(item, name);
      continue;
    } else {
      throw bad_field(name + ".type", "expected message, function_call, function_call_output or reasoning, found " +
                                          json_excerpt(type));
    }
    if (!reasoning.empty() && messages.back()["role"] == "assistant")
      messages.back()["reasoning_content"] = std::exchange(reasoning, {});
  }
  return messages;
}

}  // namespace lathe::http
