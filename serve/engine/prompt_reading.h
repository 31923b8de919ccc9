// What a request wants to know of its prompt: its tokens' log-probabilities, or its embedding. Read off the hidden
// states of each step, so that a long prompt is read in chunks like any other.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "nn/transformer.h"
#include "serve/engine/request.h"

namespace lathe::engine {

struct ScheduledSequence;

struct PromptReading {
  std::vector<PromptLogprob> logprobs;  // of the second token on
  std::vector<double> sums;             // of the hidden states pooled so far, in the order of tokens
  int64_t pooled = 0;                   // tokens, from the first on
};

// hidden [T, hidden_size], on any device: of each scheduled sequence its rows, from bounds[i] on. Rows that have been
// read before (the sequence was preempted) are passed over.
void read_prompts(const nn::Transformer& model, std::span<const ScheduledSequence> scheduled,
                  std::span<const int32_t> bounds, const Tensor& hidden, float logits_temperature);

// The mean, or the one that was pooled, of length 1; rounded from f64 to f32 at the end.
std::vector<float> embedding_of(const PromptReading& reading);

}  // namespace lathe::engine
