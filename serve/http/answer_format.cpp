#include "serve/http/answer_format.h"

#include <algorithm>

namespace lathe::http {

using nlohmann::ordered_json;

std::string AnswerFormat::error(const ApiError& error) {
  return "data: " + error.body(error_shape()) + "\n\n" + (error_shape() == ErrorShape::openai ? last_event : "");
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
