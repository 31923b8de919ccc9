// Many requests through one model: step() = schedule → run → sample → publish. A request's tokens are the same bits
// whatever else is in the batch, and whenever it was preempted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "nn/kv_cache.h"
#include "nn/transformer.h"
#include "serve/engine/decode_graphs.h"
#include "serve/engine/grammar/token_masks.h"
#include "serve/engine/request.h"
#include "serve/engine/scheduler.h"

namespace lathe::engine {

struct EngineOptions {
  int64_t kv_cache_tokens = 16384;  // capacity, rounded up to pages; generate() takes less where its requests need less
  std::optional<DType> kv_cache_dtype = {};  // f32 | bf16 | f16 | i8; the model's when empty
  // Instead of kv_cache_tokens, where given: bytes for keys and values.
  std::optional<int64_t> kv_cache_memory = {};
  int64_t max_sequences = 64;  // running at once; fewer where the memory holds fewer states
  int64_t max_tokens_per_step = 512;
  // Computed pages are kept for requests that begin the same; the same bits either way.
  bool enable_prefix_caching = true;
  std::shared_ptr<const data::Tokenizer> tokenizer = {};  // the model's: for requests with a grammar
  // Tokens guessed by prompt lookup beside each decoded one, where few requests run and guesses are mostly right; the
  // same bits either way. 0: none.
  int64_t num_speculative_tokens = 0;
  // A step of decoding alone is queued on a device as one graph, the same bits either way: for so many shapes of steps
  // graphs are kept. 0: none. (One that must ask the host is not: nn::Transformer::asks_the_host.)
  int64_t device_graphs = 32;
  // Divides the logits before everything else: a token's log-probability is the model's own at this temperature, the
  // bits of autograd::token_logprobs there. (A request's temperature only says how it is drawn.)
  float logits_temperature = 1.0f;
};

// How an engine stands, and what it has done since it was made.
struct EngineStats {
  int64_t requests_running = 0, requests_waiting = 0;
  int64_t pages_used = 0;    // belong to a request
  int64_t pages_cached = 0;  // belong to none, but hold what a request may ask for again
  int64_t pages_free = 0;
  int64_t slots_used = 0;   // tokens that the pages that belong to a request have room for …
  int64_t slots_empty = 0;  // … and how many of them they do not hold: what paging wastes
  int64_t prefix_cache_queries = 0, prefix_cache_hits = 0;  // tokens of those prompts: all, and at hand
  int64_t preemptions = 0;
  int64_t prompt_tokens = 0;                      // of requests that got their first token
  int64_t generation_tokens = 0;                  // published
  int64_t draft_tokens = 0, accepted_tokens = 0;  // guessed, and right
};

// One thread's: nothing in it locks.
class Engine {
 public:
  // The model is borrowed and must outlive the engine. Adapters may be added to it between steps;
  // release_adapter() before one is taken out, forget_prefixes() when any weight has changed.
  Engine(const nn::Transformer& model, const EngineOptions& options = {});

  // Throws ConfigError for an empty prompt, a token outside the vocabulary, an adapter that the model does not have,
  // settings out of range, or more tokens than the model's context holds; ResourceError for more than the cache holds.
  RequestId add(Request request);
  bool idle() const { return scheduler_.idle(); }
  // Requests that ran for the first time in the last step.
  std::span<const RequestId> started() const { return started_; }
  // Runs one batch; an output for each token that a sequence got, in order: several where guesses were right. Where a
  // sequence's logits are broken (NaN) it alone ends, as failed.
  std::vector<TokenOutput> step();

  // Ends a request wherever it stands: queued, in prefill or in decode. Its pages are free at once and no output of it
  // follows. False where there is no such request (any more).
  bool cancel(RequestId id) { return scheduler_.cancel(id); }

  // Requests that wait or run with this adapter, "" for those without.
  int64_t requests_of_adapter(std::string_view adapter) const { return scheduler_.requests_of_adapter(adapter); }
  // Forgets all that was computed with the adapter, so that it may be removed from the model or replaced. ConfigError
  // while requests use it: cancel them or step until they have ended.
  void release_adapter(std::string_view adapter);
  // No later request reads what has been computed so far. For weights or adapters that have changed in place.
  void forget_prefixes() { scheduler_.forget_prefixes(); }

  EngineStats stats() const;
  GraphCounts graph_counts() const { return decode_graphs_ ? decode_graphs_->counts() : GraphCounts{}; }

 private:
  std::vector<DrawnToken> run(const std::vector<ScheduledSequence>& scheduled, std::span<const RowToDraw> rows);
  void copy_pages();
  std::vector<TokenOutput> publish(const std::vector<ScheduledSequence>& scheduled, std::span<DrawnToken> drawn);
  TokenOutput publish(Sequence& sequence, DrawnToken& drawn);
  TokenOutput publish_embedding(Sequence& sequence);
  void describe_prompt(Sequence& sequence, TokenOutput& output);

  const nn::Transformer& model_;
  nn::KvCache cache_;
  Scheduler scheduler_;
  float logits_temperature_;
  std::optional<DecodeGraphs> decode_graphs_;
  RecentGrammars grammars_;
  RequestId next_id_ = 1;
  std::vector<RequestId> started_;
  EngineStats stats_;  // what has been counted; the rest is as it stands
};

struct Completion {
  std::vector<int32_t> tokens;  // without the stop token
  std::vector<float> logprobs;
  FinishReason finish_reason = FinishReason::length;
};

// All requests to their end, answers in their order. `on_token` (may be empty) sees each output as it comes; its
// request is the index into `requests`. NumericError where one fails. `graphs` (may be null) is told what was captured
// and replayed.
std::vector<Completion> generate(const nn::Transformer& model, const std::vector<Request>& requests,
                                 const EngineOptions& options = {},
                                 const std::function<void(const TokenOutput&)>& on_token = {},
                                 GraphCounts* graphs = nullptr);

}  // namespace lathe::engine
