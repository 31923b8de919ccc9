// How large a KV cache is where nobody says it.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "nn/kv_cache.h"
#include "nn/transformer.h"

namespace lathe::engine {

// States of a model that has_states(): one for each sequence that runs, and as many of what others can go on from.
int64_t state_count(const nn::ModelConfig& config, int64_t max_sequences, bool enable_prefix_caching);

// What so many bytes hold. At most half of them are states', of which there is one at least; ConfigError where no page
// is left.
struct CacheSize {
  int64_t pages = 0, states = 0;
};
CacheSize cache_size_of(const nn::ModelConfig& config, nn::CacheDTypes dtypes, int64_t most_states, int64_t bytes);

// Bytes for keys, values and states: a quarter of the free memory of a CPU, which others live from, too, or three
// quarters of a device's; at most what `max_sequences` sequences of the model's whole context need, at least one such
// sequence. `free_bytes` as the system says it once the model is loaded.
int64_t kv_cache_bytes(const nn::Transformer& model, DType dtype, int64_t max_sequences, int64_t free_bytes);

}  // namespace lathe::engine
