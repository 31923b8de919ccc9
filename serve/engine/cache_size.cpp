#include "serve/engine/cache_size.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace lathe::engine {

int64_t state_count(const nn::ModelConfig& config, int64_t max_sequences, bool enable_prefix_caching) {
  return config.has_states() ? (enable_prefix_caching ? 2 : 1) * max_sequences : 0;
}

CacheSize cache_size_of(const nn::ModelConfig& config, nn::CacheDTypes dtypes, int64_t most_states, int64_t bytes) {
  const int64_t page_size = nn::KvCache::default_page_size,
                page_bytes = nn::KvCache::bytes_per_page(config, dtypes, page_size),
                state_bytes = nn::KvCache::bytes_per_state(config, dtypes);
  CacheSize size;
  if (most_states > 0) size.states = std::clamp<int64_t>(bytes / 2 / state_bytes, 1, most_states);
  size.pages = (bytes - size.states * state_bytes) / page_bytes;
  if (size.pages >= 1) return size;
  const std::string state = size.states > 0 ? "one state (" + std::to_string(state_bytes) + ") and " : "";
  throw ConfigError("kv_cache_memory", "expected at least the bytes of " + state + "one page of " +
                                           std::to_string(page_size) + " tokens (" + std::to_string(page_bytes) +
                                           "), found " + std::to_string(bytes));
}

int64_t kv_cache_bytes(const nn::Transformer& model, DType dtype, int64_t max_sequences, int64_t free_bytes) {
  const nn::CacheDTypes dtypes{dtype, model.dtype()};
  const int64_t page = nn::KvCache::default_page_size, page_bytes = nn::KvCache::bytes_per_page(model.config(), dtypes);
  const int64_t whole_context =
      (model.max_positions() + page - 1) / page * page_bytes +
      state_count(model.config(), 1, true) * nn::KvCache::bytes_per_state(model.config(), dtypes);
  const int64_t share = model.device().kind == DeviceKind::cpu ? free_bytes / 4 : free_bytes / 4 * 3;
  const int64_t bytes = std::clamp(share, whole_context, whole_context * max_sequences);
  return model.config().has_states() ? bytes : bytes / page_bytes * page_bytes;
}

}  // namespace lathe::engine
