// Many requests through one model: step() = schedule → run → sample → publish. A request's tokens are the same bits
// whatever else is in the batch, and whenever it was preempted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "nn/kv_cache.h"
#include "nn/transformer.h"
#include "serve/engine/decode_graphs.h"
#include "serve/engine/request.h"
#include "serve/engine/scheduler.h"
#include "serve/engine/step_batch.h"

namespace lathe::engine {

struct EngineOptions {
  int64_t kv_cache_tokens = 16384;  // capacity, rounded up to pages; generate() takes less where its requests need less
  std::optional<DType> kv_cache_dtype = {};  // f32 | bf16 | f16 | i8; the model's when empty
  int64_t max_sequences = 64;
  int64_t max_tokens_per_step = 512;
  // A step of decoding alone is queued on a device as one graph, the same bits either way: for so many shapes of steps
  // graphs are kept. 0: none.
  int64_t device_graphs = 32;
};

class Engine {
 public:
  // The model is borrowed and must outlive the engine; its active adapter is used.
  Engine(const nn::Transformer& model, const EngineOptions& options = {});

  // Throws ConfigError for an empty prompt, a token outside the vocabulary, settings out of range, or more tokens than
  // the model's context or the cache holds.
  RequestId add(Request request);
  bool idle() const { return scheduler_.idle(); }
  // Runs one batch; an output for each sequence that got a token.
  std::vector<TokenOutput> step();
  GraphCounts graph_counts() const { return decode_graphs_ ? decode_graphs_->counts() : GraphCounts{}; }

 private:
  Drawn run(const std::vector<ScheduledSequence>& scheduled, std::span<const kernels::SamplingRow> rows);
  void publish(const std::vector<ScheduledSequence>& scheduled, std::vector<TokenOutput>& outputs);

  const nn::Transformer& model_;
  nn::KvCache cache_;
  Scheduler scheduler_;
  std::optional<DecodeGraphs> decode_graphs_;
  RequestId next_id_ = 1;
};

struct Completion {
  std::vector<int32_t> tokens;  // without the stop token
  std::vector<float> logprobs;
  FinishReason finish_reason = FinishReason::length;
};

// All requests to their end, answers in their order. `on_token` (may be empty) sees each output as it comes; its
// request is the index into `requests`. `graphs` (may be null) is told what was captured and replayed.
std::vector<Completion> generate(const nn::Transformer& model, const std::vector<Request>& requests,
                                 const EngineOptions& options = {},
                                 const std::function<void(const TokenOutput&)>& on_token = {},
                                 GraphCounts* graphs = nullptr);

}  // namespace lathe::engine
