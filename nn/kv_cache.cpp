#include "nn/kv_cache.h"

#include <string>

#include "core/error.h"

namespace lathe::nn {

KvCache::KvCache(const ModelConfig& config, DType dtype, int64_t pages, int64_t page_size, Device device)
    : dtype_(dtype), pages_(pages), page_size_(page_size), device_(device) {
  const Shape rows{pages, config.num_key_value_heads, page_size};
  const Shape elements{pages, config.num_key_value_heads, page_size, config.head_dim};
  const auto make = [&](const Shape& shape, DType of) { return Tensor::empty(shape, of, device, MemoryTag::kv_cache); };
  for (int64_t layer = 0; layer < config.num_hidden_layers(); ++layer) {
    kernels::KvPages made{make(elements, dtype), make(elements, dtype), {}, {}};
    if (dtype == DType::i8) made.k_scales = make(rows, DType::f32), made.v_scales = make(rows, DType::f32);
    layers_.push_back(std::move(made));
  }
}

int64_t KvCache::bytes_per_page(const ModelConfig& config, DType dtype, int64_t page_size) {
  const int64_t row_bytes = config.head_dim * size_of(dtype) + (dtype == DType::i8 ? size_of(DType::f32) : 0);
  return 2 * config.num_hidden_layers() * config.num_key_value_heads * page_size * row_bytes;
}

void KvCache::copy_pages(std::span<const int32_t> from, std::span<const int32_t> to) {
  const Tensor source = Tensor::of<int32_t>(from, {static_cast<int64_t>(from.size())});
  const Tensor target = Tensor::of<int32_t>(to, {static_cast<int64_t>(to.size())});
  for (const kernels::KvPages& layer : layers_) kernels::kv_copy_pages(layer, source, target);
}

DType parse_kv_cache_dtype(std::string_view name, DType model_dtype) {
  if (name == "auto") return model_dtype;
  if (name == "f32") return DType::f32;
  if (name == "bf16") return DType::bf16;
  if (name == "f16") return DType::f16;
  if (name == "int8") return DType::i8;
  throw ConfigError("kv_cache_dtype", "expected auto, f32, bf16, f16 or int8, found '" + std::string(name) + "'");
}

}  // namespace lathe::nn
