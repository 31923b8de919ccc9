// Completions sampled from the model as it stands, by an engine that lives as long as the run: continuous batching over
// pages, a group's prompt computed once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "serve/engine/engine.h"

namespace lathe::train {

struct Rollout {
  std::vector<int32_t> ids;     // of the completion, with the stop token where it ended by one
  std::vector<float> logprobs;  // of each, under the model's own distribution at the temperature: the trainer's bits
  bool truncated = false;       // ended by max_completion_length
};

struct RolloutOptions {
  int64_t max_completion_length = 512;
  float temperature = 1.0f, top_p = 1.0f, min_p = 0.0f;
  int32_t top_k = 0;
  std::vector<int32_t> stop_token_ids;
  std::optional<std::string> adapter;  // of a model that has several
  int64_t kv_cache_tokens = 16384;
  int64_t max_sequences = 64;
};

class RolloutSampler {
 public:
  // The model is borrowed; its weights may change between calls.
  RolloutSampler(const nn::Transformer& model, RolloutOptions options);

  // num_generations completions of each prompt, a group's together. The random numbers of a completion follow from
  // (seed, draw, stream and occurrence of its prompt, its number in the group) alone.
  struct Prompt {
    std::span<const int32_t> ids;
    int64_t stream = 0;
    int64_t occurrence = 0;  // how many prompts of the draw before it are of the same stream
  };
  std::vector<Rollout> sample(std::span<const Prompt> prompts, int64_t num_generations, uint64_t seed, int64_t draw);

 private:
  RolloutOptions options_;
  engine::Engine engine_;
};

}  // namespace lathe::train
