// What is asked of the engine, and what it answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "kernels/sampling/sampling.h"

namespace lathe::engine {

using RequestId = uint64_t;

struct Request {
  std::vector<int32_t> prompt;  // token ids, at least one
  kernels::SamplingParams sampling;
  int64_t max_tokens = 256;             // to generate
  std::vector<int32_t> stop_token_ids;  // generation ends with one of them, which is not part of the answer
};

enum class FinishReason { stop, length };
std::string_view name_of(FinishReason reason);  // "stop", "length"

// One token, as it is published by Engine::step().
struct TokenOutput {
  RequestId request = 0;
  int32_t token = 0;
  float logprob = 0;                          // under the model's own distribution
  std::optional<FinishReason> finish_reason;  // set on a request's last output; a stop token is published with it
};

}  // namespace lathe::engine
