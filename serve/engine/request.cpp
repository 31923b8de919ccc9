#include "serve/engine/request.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"

namespace lathe::engine {
namespace {

void check_token(const char* key, int32_t token, int64_t vocab_size) {
  if (token < 0 || token >= vocab_size)
    throw ConfigError(key,
                      "token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(vocab_size));
}

void check_lengths(const Request& request, int64_t max_positions) {
  if (request.prompt.empty()) throw ConfigError("prompt", "is empty; generation needs at least one token");
  if (request.max_tokens < (request.pooling ? 0 : 1))
    throw ConfigError("max_tokens", "expected at least 1, found " + std::to_string(request.max_tokens));
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length > max_positions || request.max_tokens > max_positions - length)
    throw ConfigError("max_tokens", "a prompt of " + std::to_string(length) + " and " +
                                        std::to_string(request.max_tokens) +
                                        " new tokens exceed the model's context of " + std::to_string(max_positions));
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens)
    throw ConfigError("min_tokens", "expected 0 to max_tokens (" + std::to_string(request.max_tokens) + "), found " +
                                        std::to_string(request.min_tokens));
}

void check_logit_bias(const Request& request, int64_t vocab_size) {
  std::set<int32_t> seen;
  for (const auto& [token, bias] : request.logit_bias) {
    check_token("logit_bias", token, vocab_size);
    if (!std::isfinite(bias))
      throw ConfigError("logit_bias", "expected a finite number for token " + std::to_string(token) + ", found " +
                                          std::to_string(bias));
    if (!seen.insert(token).second) throw ConfigError("logit_bias", "token " + std::to_string(token) + " comes twice");
  }
}

void check_alternatives(int32_t count) {
  if (count < 0 || count > most_top_logprobs)
    throw ConfigError("top_logprobs",
                      "expected 0 to " + std::to_string(most_top_logprobs) + ", found " + std::to_string(count));
}

}  // namespace

void check_request(const Request& request, const nn::Transformer& model) {
  const int64_t vocab_size = model.config().vocab_size;
  for (const int32_t token : request.prompt) check_token("prompt", token, vocab_size);
  check_lengths(request, model.max_positions());
  kernels::check_sampling(request.sampling);
  check_logit_bias(request, vocab_size);
  const auto in_vocabulary = [&](int32_t token) { return token >= 0 && token < vocab_size; };
  if (request.grammar && std::ranges::none_of(request.stop_token_ids, in_vocabulary))
    throw ConfigError("stop_token_ids", "expected one at least: an answer that follows a grammar ends with it");
  for (const int32_t count : {request.top_logprobs, request.prompt_logprobs.value_or(0)}) check_alternatives(count);
}

std::string adapter_of(const Request& request, const nn::Transformer& model) {
  const std::vector<std::string> names = model.adapter_names();
  if (request.adapter) {
    if (!request.adapter->empty() && std::find(names.begin(), names.end(), *request.adapter) == names.end())
      throw ConfigError("adapter", "the model has no adapter '" + *request.adapter + "'");
    return *request.adapter;
  }
  if (names.size() > 1)
    throw ConfigError("adapter", "the model has several, of which '" + names[0] + "' is one: a request must say which");
  return names.empty() ? std::string() : names[0];
}

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop: return "stop";
    case FinishReason::length: return "length";
    case FinishReason::failed: return "error";
    case FinishReason::cancelled: break;
  }
  return "abort";
}

}  // namespace lathe::engine
