#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "serve/engine/engine.h"

namespace lathe::engine {
namespace {

// The cache that the longest requests that run together fill, within the limit, and states of no more sequences.
EngineOptions sized_for(const nn::Transformer& model, const std::vector<Request>& requests, EngineOptions options) {
  std::vector<int64_t> lengths;
  for (const Request& request : requests) {
    const int64_t page = nn::KvCache::default_page_size;
    const int64_t length = static_cast<int64_t>(request.prompt.size()) + std::max<int64_t>(request.max_tokens, 0);
    lengths.push_back((length + page - 1) / page * page);
  }
  std::sort(lengths.rbegin(), lengths.rend());
  int64_t needed = 0;
  for (size_t i = 0; i < lengths.size() && static_cast<int64_t>(i) < options.max_sequences; ++i) needed += lengths[i];
  if (!options.kv_cache_memory) options.kv_cache_tokens = std::min(options.kv_cache_tokens, needed);
  if (!model.config().has_states()) return options;
  options.max_sequences = std::clamp<int64_t>(static_cast<int64_t>(requests.size()), 1, options.max_sequences);
  if (requests.size() == 1) options.enable_prefix_caching = false;  // no other begins the same
  return options;
}

}  // namespace

std::vector<Completion> generate(const nn::Transformer& model, const std::vector<Request>& requests,
                                 const EngineOptions& options, const std::function<void(const TokenOutput&)>& on_token,
                                 GraphCounts* graphs) {
  Engine engine(model, sized_for(model, requests, options));
  std::unordered_map<RequestId, size_t> index_of;
  for (size_t i = 0; i < requests.size(); ++i) index_of[engine.add(requests[i])] = i;
  std::vector<Completion> completions(requests.size());
  while (!engine.idle()) {
    for (TokenOutput output : engine.step()) {
      if (output.finish_reason == FinishReason::failed) throw NumericError(output.failure);
      const size_t index = index_of.at(output.request);
      Completion& completion = completions[index];
      if (output.finish_reason) completion.finish_reason = *output.finish_reason;
      if (output.finish_reason != FinishReason::stop) {
        completion.tokens.push_back(output.token);
        completion.logprobs.push_back(output.logprob);
      }
      output.request = index;
      if (on_token) on_token(output);
    }
  }
  if (graphs != nullptr) *graphs = engine.graph_counts();
  return completions;
}

}  // namespace lathe::engine
