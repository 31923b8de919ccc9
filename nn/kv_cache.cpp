#include "nn/kv_cache.h"

#include <string>

#include "core/error.h"

namespace lathe::nn {

KvCache::KvCache(const ModelConfig& config, DType dtype, int64_t pages, int64_t page_size, Device device)
    : dtype_(dtype), pages_(pages), page_size_(page_size), device_(device) {
  device.kind == DeviceKind::cpu ? lay_out_by_pages(config) : lay_out_by_layers(config);
}

Tensor KvCache::make(const Shape& shape, DType dtype) const {
  return Tensor::empty(shape, dtype, device_, MemoryTag::kv_cache);
}

// A page of all layers lies in one piece: memory comes from the system in pages of 2 MiB, as it is first touched, and
// is cleared then. With each layer's pages apart a first token touched 60 of them in a model of 30 layers: 120 MiB.
void KvCache::lay_out_by_pages(const ModelConfig& config) {
  const int64_t layers = config.num_hidden_layers(), heads = config.num_key_value_heads;
  const Tensor elements = make({pages_, layers, 2, heads, page_size_, config.head_dim}, dtype_);
  const Tensor scales = dtype_ == DType::i8 ? make({pages_, layers, 2, heads, page_size_}, DType::f32) : Tensor();
  for (int64_t layer = 0; layer < layers; ++layer) {
    const auto side = [layer](const Tensor& of, int64_t index) { return of.select(1, layer).select(1, index); };
    kernels::KvPages made{side(elements, 0), side(elements, 1), {}, {}};
    if (scales.defined()) made.k_scales = side(scales, 0), made.v_scales = side(scales, 1);
    layers_.push_back(std::move(made));
  }
}

// Devices take pages that are contiguous within a layer (kernels/paged_attention), and have all their memory at once.
void KvCache::lay_out_by_layers(const ModelConfig& config) {
  const Shape rows{pages_, config.num_key_value_heads, page_size_};
  const Shape elements{pages_, config.num_key_value_heads, page_size_, config.head_dim};
  for (int64_t layer = 0; layer < config.num_hidden_layers(); ++layer) {
    kernels::KvPages made{make(elements, dtype_), make(elements, dtype_), {}, {}};
    if (dtype_ == DType::i8) made.k_scales = make(rows, DType::f32), made.v_scales = make(rows, DType::f32);
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
