#include "serve/http/answer_format.h"

#include <algorithm>

namespace lathe::http {

using nlohmann::ordered_json;

std::string AnswerFormat::error(const ApiError& error) {
  return "data: " + error.body(error_shape()) + "\n\n" + (error_shape() == ErrorShape::openai ? last_event : "");
}

std::string AnswerFormat::prompt(size_t, const std::vector<engine::PromptLogprob>&) { return {}; }

ordered_json prompt_logprobs_json(const data::Tokenizer& tokenizer, const std::vector<engine::PromptLogprob>& logprobs,
                                  int64_t alternatives) {
  ordered_json list = ordered_json::array({nullptr});
  const auto entry = [&](int32_t token, float logprob, int64_t rank) {
    return ordered_json{
        {"logprob", finite_logprob(logprob)}, {"rank", rank}, {"decoded_token", name_of(tokenizer, token).text}};
  };
  for (const engine::PromptLogprob& one : logprobs) {
    ordered_json tokens{{std::to_string(one.token), entry(one.token, one.logprob, one.rank)}};
    const auto count = std::min(static_cast<size_t>(alternatives), one.top_logprobs.size());
    for (size_t i = 0; i < count; ++i)
      if (const auto& [token, logprob] = one.top_logprobs[i]; token != one.token)
        tokens[std::to_string(token)] = entry(token, logprob, static_cast<int64_t>(i) + 1);
    list.push_back(std::move(tokens));
  }
  return list;
}

ordered_json token_logprobs_json(const data::Tokenizer& tokenizer, std::span<const AnsweredToken> tokens) {
  const auto entry = [&](int32_t token, float logprob) -> ordered_json {
    const TokenName name = name_of(tokenizer, token);
    ordered_json bytes = ordered_json::array();
    for (const char byte : name.bytes) bytes.push_back(static_cast<unsigned char>(byte));
    return {{"token", name.text}, {"logprob", finite_logprob(logprob)}, {"bytes", std::move(bytes)}};
  };
  ordered_json list = ordered_json::array();
  for (const AnsweredToken& token : tokens) {
    ordered_json one = entry(token.id, token.logprob);
    one["top_logprobs"] = ordered_json::array();
    for (const engine::TokenLogprob& other : token.alternatives)
      one["top_logprobs"].push_back(entry(other.token, other.logprob));
    list.push_back(std::move(one));
  }
  return list;
}

std::string event(const ordered_json& data) {
  return "data: " + data.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n\n";
}

ordered_json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

void read_whole(AnswerParser& parser, const WholeAnswer& answer,
                const std::function<void(const AnswerParts& parts, std::span<const AnsweredToken> token)>& take) {
  size_t read = 0;
  for (const AnsweredToken& token : answer.tokens) {
    take(parser.push(token.text, 1), std::span(&token, 1));
    read += token.text.size();
  }
  take(parser.push(std::string_view(answer.text).substr(read), 0), {});  // bytes that make no character
  take(parser.finish(), {});
}

const char* finish_reason(AnswerEnd end) {
  switch (end) {
    case AnswerEnd::stop_token:
    case AnswerEnd::stop_string: return "stop";
    case AnswerEnd::length: return "length";
    case AnswerEnd::cancelled: return "abort";
  }
  return "stop";
}

float finite_logprob(float logprob) { return std::max(logprob, -9999.0f); }

}  // namespace lathe::http
