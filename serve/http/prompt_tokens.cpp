#include "serve/http/prompt_tokens.h"

#include "core/error.h"
#include "serve/http/api_error.h"
#include "serve/http/reasoning/reasoning_format.h"
#include "serve/http/tools/tool_format.h"

namespace lathe::http {
namespace {

// An HTTP thread is held up for no longer.
constexpr data::TemplateLimits request_limits{
    .steps = 2'000'000, .output_bytes = 32 << 20, .seconds = 2, .nesting = 100};

// The messages with the arguments of calls as strings of JSON.
nlohmann::ordered_json with_text_arguments(nlohmann::ordered_json messages) {
  for (auto& message : messages) {
    const auto calls = message.find("tool_calls");
    if (calls == message.end()) continue;
    for (auto& call : *calls) call["function"]["arguments"] = call["function"]["arguments"].dump();
  }
  return messages;
}

// gpt-oss's template calls thoughts "thinking", and takes either them or a text beside calls.
nlohmann::ordered_json with_thinking(nlohmann::ordered_json messages) {
  for (auto& message : messages) {
    const auto reasoning = message.find("reasoning_content");
    if (reasoning == message.end()) continue;
    if (!message.contains("tool_calls") || message["content"] == "") message["thinking"] = *reasoning;
  }
  return messages;
}

}  // namespace

ChatPrompt chat_prompt(const text::ModelText& text, const ChatRequest& request) {
  if (!text.chat_template)
    throw ApiError(400, "this model has no chat template; /v1/completions continues plain text", "messages");
  data::ChatOptions options;
  options.add_generation_prompt = request.add_generation_prompt;
  options.variables = &request.variables;
  if (request.tools) options.tools = &request.tools->tools;
  options.special_tokens = data::special_token_variables(*text.tokenizer);
  options.limits = request_limits;
  try {
    const auto render = [&](const nlohmann::ordered_json& messages) {
      return text.chat_template->render_texts(messages, options);
    };
    data::RenderedChat chat = arguments_as_text(*text.tokenizer) ? render(with_text_arguments(request.messages))
                              : speaks_harmony(*text.tokenizer)  ? render(with_thinking(request.messages))
                                                                 : render(request.messages);
    std::vector<int32_t> tokens = text.tokenizer->encode(chat.text, chat.control);
    return {std::move(chat.text), std::move(tokens)};
  } catch (const ConfigError& error) {
    throw ApiError(400, std::string("the model's chat template: ") + error.what(), "messages");
  }
}

std::vector<int32_t> prompt_tokens(const text::ModelText& text, const Prompt& prompt) {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) return *ids;
  return text.tokenizer->encode(std::get<std::string>(prompt), data::SpecialTokens::as_text, data::SequenceTokens::add);
}

}  // namespace lathe::http
