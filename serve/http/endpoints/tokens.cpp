// POST /tokenize and /detokenize, as vLLM has them.

#include "core/json_value.h"
#include "serve/http/prompt_tokens.h"
#include "serve/http/service.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

std::vector<int32_t> read_tokens(const Fields& fields, const text::ModelText& text) {
  if (fields.find("messages") != nullptr) {
    ChatRequest request;
    request.messages = read_messages(fields);
    request.variables = ordered_json::object();
    request.tools = read_tool_request(fields);
    if (request.tools) tool_format_of(*text.tokenizer);  // says where it has none
    request.add_generation_prompt = fields.boolean("add_generation_prompt").value_or(true);
    return chat_prompt(text, request).tokens;
  }
  const ordered_json& prompt = fields.required("prompt", "a string (or messages)");
  if (!prompt.is_string()) throw bad_field("prompt", "expected a string");
  const bool add = fields.boolean("add_special_tokens").value_or(true);
  return text.tokenizer->encode(prompt.get<std::string>(), data::SpecialTokens::as_text,
                                add ? data::SequenceTokens::add : data::SequenceTokens::none);
}

}  // namespace

void tokenize(const Call& call) {
  const text::ModelText& text = call.service.loaded().text;
  const ordered_json body = parse_body(call.request().body);
  const Fields fields(body);
  call.service.adapter_of(fields.text("model").value_or(""));
  const std::vector<int32_t> tokens = read_tokens(fields, text);
  ordered_json answer{{"count", tokens.size()}, {"max_model_len", call.service.engine.context()}, {"tokens", tokens}};
  if (fields.boolean("return_token_strs").value_or(false)) {
    answer["token_strs"] = ordered_json::array();
    for (const int32_t token : tokens) answer["token_strs"].push_back(std::string(text.tokenizer->token(token)));
  }
  call.reply(answer);
}

void detokenize(const Call& call) {
  const text::ModelText& text = call.service.loaded().text;
  const ordered_json body = parse_body(call.request().body);
  const Fields fields(body);
  fields.required("tokens", "a list of token ids");
  const auto tokens =
      fields.token_ids("tokens", SIZE_MAX, std::max<int64_t>(text.vocab_size, text.tokenizer->vocab_size()));
  call.reply(ordered_json{{"prompt", text.tokenizer->decode(tokens)}});
}

}  // namespace lathe::http
