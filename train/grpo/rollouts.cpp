#include "train/grpo/rollouts.h"

#include <unordered_map>

#include "core/random.h"

namespace lathe::train {
namespace {

engine::EngineOptions engine_options(const RolloutOptions& options) {
  engine::EngineOptions result;
  result.kv_cache_tokens = options.kv_cache_tokens;
  result.max_sequences = options.max_sequences;
  result.logits_temperature = options.temperature;
  return result;
}

uint64_t number_of(const PhiloxCounter& bits) { return (uint64_t{bits[0]} << 32) | bits[1]; }

uint64_t seed_of(uint64_t seed, int64_t draw, const RolloutSampler::Prompt& prompt, int64_t generation) {
  const uint64_t first =
      number_of(random_bits(seed, RandomPurpose::sampling, static_cast<uint64_t>(draw) + 1,
                            (static_cast<uint64_t>(prompt.stream) << 16) | static_cast<uint64_t>(generation)));
  if (prompt.occurrence == 0) return first;
  return number_of(random_bits(first, RandomPurpose::sampling, 0, static_cast<uint64_t>(prompt.occurrence)));
}

}  // namespace

RolloutSampler::RolloutSampler(const nn::Transformer& model, RolloutOptions options)
    : options_(std::move(options)), engine_(model, engine_options(options_)) {}

std::vector<Rollout> RolloutSampler::sample(std::span<const Prompt> prompts, int64_t num_generations, uint64_t seed,
                                            int64_t draw) {
  engine_.forget_prefixes();  // the weights have changed since
  std::vector<Rollout> rollouts(prompts.size() * static_cast<size_t>(num_generations));
  std::unordered_map<engine::RequestId, size_t> index_of;
  for (const Prompt& prompt : prompts)
    for (int64_t generation = 0; generation < num_generations; ++generation) {
      engine::Request request;
      request.prompt.assign(prompt.ids.begin(), prompt.ids.end());
      // The logits come divided by the temperature (EngineOptions::logits_temperature).
      request.sampling.temperature = 1.0f;
      request.sampling.top_p = options_.top_p;
      request.sampling.top_k = options_.top_k;
      request.sampling.min_p = options_.min_p;
      request.sampling.seed = seed_of(seed, draw, prompt, generation);
      request.max_tokens = options_.max_completion_length;
      request.stop_token_ids = options_.stop_token_ids;
      request.adapter = options_.adapter;
      const size_t index = index_of.size();
      index_of[engine_.add(std::move(request))] = index;
    }
  while (!engine_.idle()) {
    for (const engine::TokenOutput& output : engine_.step()) {
      Rollout& rollout = rollouts[index_of.at(output.request)];
      rollout.ids.push_back(output.token);
      rollout.logprobs.push_back(output.logprob);
      if (output.finish_reason) rollout.truncated = output.finish_reason == engine::FinishReason::length;
    }
  }
  return rollouts;
}

}  // namespace lathe::train
