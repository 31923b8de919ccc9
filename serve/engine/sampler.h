// From a step's logits to its tokens. Most rows are drawn where the logits lie (kernels/sampling). A row whose request
// bans, biases or wants to see tokens is drawn on the host, from a copy: the same token as on the device.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "kernels/sampling/sampling.h"
#include "serve/engine/grammar/token_masks.h"
#include "serve/engine/request.h"

namespace lathe::engine {

// A row of logits, and what decides about its token: bans and biases first, then penalties, temperature and filters.
struct RowToDraw {
  kernels::SamplingRow sampling;
  std::span<const LogitBias> logit_bias = {};
  std::span<const int32_t> banned = {};  // those outside the vocabulary are banned anyway
  TokenMask allowed = {};                // empty: every token
  int32_t top_logprobs = 0;
  bool on_host() const { return !logit_bias.empty() || !banned.empty() || !allowed.empty() || top_logprobs > 0; }
};

struct DrawnToken {
  int32_t token = 0;                            // a kernels::BrokenLogits where the row is broken
  float logprob = 0;                            // under the model's own distribution
  std::vector<TokenLogprob> top_logprobs = {};  // of that distribution (TokenOutput)
};

// logits f32 (f64) [rows, V] on any device, which may be overwritten. A row that is broken moves no other. Waits for
// the device.
std::vector<DrawnToken> draw(const Tensor& logits, std::span<const RowToDraw> rows);

// Of each row, under its own distribution, how likely `tokens[row]` is; NaN where the row is broken.
std::vector<PromptLogprob> logprobs_of(const Tensor& logits, std::span<const int32_t> tokens, int32_t top_logprobs);

// A token and its log-probability for each row, on the device where they were drawn.
struct Drawn {
  Tensor tokens, logprobs;
};
Drawn room_to_draw(const Tensor& logits);
std::vector<DrawnToken> on_host(const Drawn& drawn);

}  // namespace lathe::engine
