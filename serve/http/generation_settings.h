// What a request asks of the generation, whatever endpoint it came by.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "serve/engine/request.h"
#include "serve/http/fields.h"

namespace lathe::http {

inline constexpr int64_t most_choices = 128, most_alternatives = 20, most_max_tokens = int64_t{1} << 31;
inline constexpr size_t most_stops = 16, most_stop_bytes = 1024, most_stop_ids = 128, most_biased_tokens = 1024;

struct GenerationSettings {
  std::string model;  // as the client calls it; empty for the base model
  int64_t n = 1;
  kernels::SamplingParams sampling;
  std::optional<int64_t> max_tokens;  // up to the end of the context where it is not given
  int64_t min_tokens = 0;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::vector<engine::LogitBias> logit_bias;
  std::shared_ptr<const engine::Grammar> grammar;  // what the answer may be; null: anything
  std::vector<int32_t> grammar_after;              // the tokens before it: of thoughts that end; none: at once
  std::optional<int64_t> top_logprobs;  // alternatives beside each token's own log-probability; empty: neither
  // Of the prompt's tokens, alternatives beside each one's log-probability: prompt_logprobs, or logprobs with echo.
  std::optional<int64_t> prompt_logprobs;
  int32_t priority = 0;  // lower runs first
  std::string cache_salt;
  bool skip_special_tokens = true;
  std::vector<int32_t> shown_tokens;  // special, and yet part of the text
  bool stream = false, include_usage = false;
};

// The fields that OpenAI's endpoints share: model, n, temperature, top_p, top_k, min_p, penalties, seed, stop,
// stop_token_ids, ignore_eos, min_tokens, logit_bias, the answer's grammar, prompt_logprobs, priority, cache_salt,
// stream, stream_options. ApiError for the first that is wrong. Without a seed one is drawn from the system.
GenerationSettings read_generation_settings(const Fields& fields, int64_t vocabulary);

// Stop strings as given, without repetitions; ApiError for an empty or an endless one.
std::vector<std::string> read_stops(const Fields& fields, const char* key);
uint64_t random_seed();

}  // namespace lathe::http
