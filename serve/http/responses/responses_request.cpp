#include "serve/http/responses/responses_request.h"

#include "core/json.h"
#include "serve/http/answer_grammar.h"
#include "serve/http/api_error.h"
#include "serve/http/responses/input_items.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

// What would have to be kept, or run, on this side.
void refuse_what_is_not_here(const Fields& fields) {
  for (const char* key : {"previous_response_id", "conversation", "prompt"})
    if (fields.find(key) != nullptr)
      throw bad_field(key, "this server keeps nothing between requests; send the whole conversation as input");
  if (fields.boolean("background").value_or(false)) throw bad_field("background", "this server answers at once");
  fields.boolean("store");  // read, and nothing is stored
  const auto truncation = fields.text("truncation");
  if (truncation && *truncation != "disabled")
    throw bad_field("truncation", "expected disabled: nothing of a conversation is left out silently");
}

std::optional<int64_t> read_top_logprobs(const Fields& fields) {
  const auto alternatives = fields.integer("top_logprobs", 0, most_alternatives);
  bool asked = alternatives.value_or(0) > 0;
  if (const ordered_json* include = fields.find("include")) {
    if (!include->is_array()) throw bad_field("include", "expected a list, found " + json_excerpt(*include));
    for (const ordered_json& one : *include) asked = asked || one == "message.output_text.logprobs";
  }
  return asked ? std::optional(alternatives.value_or(0)) : std::nullopt;
}

ordered_json asked_of(const ordered_json& body, const ResponsesRequest& request) {
  const auto given = [&](const char* key, const ordered_json& otherwise) {
    const auto found = body.find(key);
    return found == body.end() || found->is_null() ? otherwise : *found;
  };
  const kernels::SamplingParams& sampling = request.chat.settings.sampling;
  return {{"instructions", given("instructions", nullptr)},
          {"max_output_tokens", given("max_output_tokens", nullptr)},
          {"metadata", given("metadata", ordered_json::object())},
          {"parallel_tool_calls", given("parallel_tool_calls", true)},
          {"previous_response_id", nullptr},
          {"reasoning", given("reasoning", {{"effort", nullptr}, {"summary", nullptr}})},
          {"store", false},
          {"temperature", given("temperature", sampling.temperature)},
          {"text", given("text", {{"format", {{"type", "text"}}}})},
          {"tool_choice", given("tool_choice", "auto")},
          {"tools", given("tools", ordered_json::array())},
          {"top_logprobs", request.chat.settings.top_logprobs.value_or(0)},
          {"top_p", given("top_p", sampling.top_p)},
          {"truncation", "disabled"}};
}

}  // namespace

ResponsesRequest read_responses_request(const ordered_json& body, int64_t vocabulary) {
  const Fields fields(body);
  refuse_what_is_not_here(fields);
  ResponsesRequest request;
  ChatRequest& chat = request.chat;
  chat.messages = read_input(fields);
  chat.settings = read_generation_settings(fields, vocabulary);
  if (chat.settings.n > 1) throw bad_field("n", "a response is one answer");
  if (chat.settings.prompt_logprobs) throw bad_field("prompt_logprobs", "a response has no place for them");
  chat.settings.max_tokens = fields.integer("max_output_tokens", 1, most_max_tokens);
  chat.settings.top_logprobs = read_top_logprobs(fields);
  if (const ordered_json* text = fields.find("text"))
    if (const ordered_json* format = Fields(*text, "text.").find("format"); format != nullptr) {
      auto grammar = read_text_format(*format);
      if (grammar && chat.settings.grammar)
        throw bad_field("text.format", "only one description of the answer is allowed");
      if (grammar) chat.settings.grammar = std::move(grammar);
    }
  if (chat.settings.grammar && chat.settings.ignore_eos)
    throw bad_field("ignore_eos", "an answer of a given form ends where the form does");
  read_chat_options(fields, chat);
  if (const ordered_json* reasoning = fields.find("reasoning"))
    add_reasoning_effort(Fields(*reasoning, "reasoning.").text("effort"), chat);
  chat.tools = read_tool_request(fields, ToolShape::flat);
  check_tool_choice(chat);
  const ordered_json* metadata = fields.find("metadata");
  if (metadata != nullptr && !metadata->is_object())
    throw bad_field("metadata", "expected an object, found " + json_excerpt(*metadata));
  request.asked = asked_of(body, request);
  return request;
}

}  // namespace lathe::http
