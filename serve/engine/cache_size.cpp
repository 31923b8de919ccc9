#include "serve/engine/cache_size.h"

#include <algorithm>

#include "nn/kv_cache.h"

namespace lathe::engine {

int64_t kv_cache_bytes(const nn::Transformer& model, DType dtype, int64_t max_sequences, int64_t free_bytes) {
  const int64_t page = nn::KvCache::default_page_size,
                page_bytes = nn::KvCache::bytes_per_page(model.config(), {dtype, model.dtype()});
  const int64_t whole_context = (model.max_positions() + page - 1) / page;
  const int64_t share = model.device().kind == DeviceKind::cpu ? free_bytes / 4 : free_bytes / 4 * 3;
  return std::clamp(share / page_bytes, whole_context, whole_context * max_sequences) * page_bytes;
}

}  // namespace lathe::engine
