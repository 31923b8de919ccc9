#include "data/rows/chat_rows.h"

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::data {

using nlohmann::ordered_json;

ordered_json messages_of(const ordered_json& row, const char* field) {
  const ordered_json& list = row.at(field);
  if (!list.is_array())
    throw Error(std::string("\"") + field + "\" must be a list of messages, not " + list.type_name());
  if (list.empty()) throw Error(std::string("\"") + field + "\" has no message");
  ordered_json messages = ordered_json::array();
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = std::string("\"") + field + "\"[" + std::to_string(i) + "]";
    if (!list[i].is_object())
      throw Error(where + " must be an object with \"role\" and \"content\", not " + list[i].type_name());
    ordered_json message = ordered_json::object();
    for (const auto& [key, value] : list[i].items())
      message[key == "from" ? "role" : key == "value" ? "content" : key] = value;
    if (!message.contains("role")) throw Error(where + " has no \"role\"");
    if (!message.at("role").is_string())
      throw Error(where + ".role must be a string, not " + message.at("role").type_name());
    if (!message.contains("content") && !message.contains("tool_calls")) throw Error(where + " has no \"content\"");
    if (message.contains("content")) {
      const ordered_json& content = message.at("content");
      if (!content.is_string() && !content.is_array() && !content.is_null()) {
        throw Error(where + ".content must be a string, not " + content.type_name());
      }
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

RenderedChat render_row(const ordered_json& row, const ordered_json& messages, const ChatTemplate* chat_template,
                        const std::map<std::string, std::string>& token_variables, bool add_generation_prompt) {
  if (!chat_template) throw Error("is a chat, but the model has no chat template");
  ChatOptions chat_options;
  chat_options.add_generation_prompt = add_generation_prompt;
  chat_options.special_tokens = token_variables;
  ordered_json tools;
  if (row.contains("tools")) {
    tools = row.at("tools");
    if (tools.is_string()) {
      const auto text = tools.get<std::string>();
      try {
        tools = parse_json(text, "\"tools\"");
      } catch (const FormatError& error) {
        throw Error(std::string("\"tools\" is a string that is no JSON: ") + error.what());
      }
    }
    if (!tools.is_array() && !tools.is_null()) throw Error("\"tools\" must be a list");
    chat_options.tools = &tools;
  }
  if (row.contains("chat_template_kwargs") && !row.at("chat_template_kwargs").is_null()) {
    if (!row.at("chat_template_kwargs").is_object()) throw Error("\"chat_template_kwargs\" must be an object");
    chat_options.variables = &row.at("chat_template_kwargs");
  }
  return chat_template->render_texts(messages, chat_options);
}

}  // namespace lathe::data
