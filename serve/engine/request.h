// What is asked of the engine, and what it answers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/sampling/sampling.h"
#include "nn/transformer.h"
#include "serve/engine/grammar/grammar.h"

namespace lathe::engine {

using RequestId = uint64_t;

struct LogitBias {
  int32_t token = 0;
  float bias = 0;  // added to the token's logit before penalties, temperature and filters
};

inline constexpr int32_t most_top_logprobs = 20;

// Of a prompt's last hidden states, after the last norm: their mean, or the last token's.
enum class Pooling { mean, last };

struct Request {
  std::vector<int32_t> prompt;  // token ids, at least one
  kernels::SamplingParams sampling;
  int64_t max_tokens = 256;  // to generate
  // Generation ends with one of them, which is not part of the answer. None: it goes on to max_tokens (ignore_eos).
  std::vector<int32_t> stop_token_ids = {};
  int64_t min_tokens = 0;                  // so many tokens are generated before a stop token may be drawn
  std::vector<LogitBias> logit_bias = {};  // each token once
  // What the answer may be; the engine needs a tokenizer for it, and the request a stop token.
  std::shared_ptr<const Grammar> grammar = {};
  // Where the grammar begins: behind the first place of these tokens in the answer, which is free before them and does
  // not end. None: at once.
  std::vector<int32_t> grammar_after = {};
  int32_t top_logprobs = 0;  // likeliest tokens to publish beside the drawn one, at most 20
  // The prompt's own log-probabilities, with so many of the likeliest tokens beside each (at most 20).
  std::optional<int32_t> prompt_logprobs = {};
  // Nothing is generated: the answer is the prompt's embedding.
  std::optional<Pooling> pooling = {};
  // The adapter of the model that answers, "" for none. Not given: the model's only adapter, or none where it has none;
  // a model with several wants to be told (nn::TokenBatch::adapters).
  std::optional<std::string> adapter = {};
  // Computed keys and values are shared between requests of the same adapter and salt alone.
  std::string cache_salt = {};
  int32_t priority = 0;  // lower runs first; of equals the one that came first
};

// ConfigError with the name of the first field that the model cannot answer: an empty prompt, a token outside the
// vocabulary, more tokens than its context, a setting out of range.
void check_request(const Request& request, const nn::Transformer& model);
// The adapter that answers it, "" for none. ConfigError where the model lacks it, or has several to choose from.
std::string adapter_of(const Request& request, const nn::Transformer& model);

enum class FinishReason {
  stop,
  length,
  failed,    // the model's numbers broke for this request: TokenOutput::failure says how
  cancelled  // by Engine::cancel(); never published by a step: for whoever keeps a record of all requests
};
std::string_view name_of(FinishReason reason);  // "stop", "length", "error", "abort" (vLLM's names)

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// A token of a prompt, under the model's own distribution after the tokens before it.
struct PromptLogprob {
  int32_t token = 0;
  float logprob = 0;
  int64_t rank = 0;  // 1 for the likeliest
  std::vector<TokenLogprob> top_logprobs = {};
};

// One token, as it is published by Engine::step().
struct TokenOutput {
  RequestId request = 0;
  int32_t token = 0;
  float logprob = 0;                               // under the model's own distribution
  std::optional<FinishReason> finish_reason = {};  // set on a request's last output; a stop token is published with it
  // The likeliest tokens of the model's own distribution, as many as Request::top_logprobs, in falling order; of equals
  // the lower id first.
  std::vector<TokenLogprob> top_logprobs = {};
  // On a request's first output: how many of its prompt's tokens were not computed, because their keys and values were
  // at hand.
  std::optional<int64_t> cached_tokens = {};
  // On the first output of a request that asks for them: of each token of the prompt but the first.
  std::vector<PromptLogprob> prompt_logprobs = {};
  // Of a request with pooling, on its only output, which has no token: of length 1 (of zeros where all are zero).
  std::vector<float> embedding = {};
  std::string failure = {};  // where finish_reason is failed, which has no token either
};

}  // namespace lathe::engine
