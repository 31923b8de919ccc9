#include "nn/kv_cache.h"

namespace lathe::nn {

KvCache::KvCache(const ModelConfig& config, DType dtype, int64_t pages, int64_t page_size)
    : pages_(pages), page_size_(page_size) {
  const Shape shape{pages, config.num_key_value_heads, page_size, config.head_dim};
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    k_.push_back(Tensor::empty(shape, dtype, {}, MemoryTag::kv_cache));
    v_.push_back(Tensor::empty(shape, dtype, {}, MemoryTag::kv_cache));
  }
}

int64_t KvCache::bytes_per_page(const ModelConfig& config, DType dtype, int64_t page_size) {
  return 2 * config.num_hidden_layers * config.num_key_value_heads * page_size * config.head_dim * size_of(dtype);
}

}  // namespace lathe::nn
