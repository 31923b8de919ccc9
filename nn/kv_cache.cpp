#include "nn/kv_cache.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace lathe::nn {

namespace {

int64_t count_of(const ModelConfig& config, Mixer mixer) {
  return std::ranges::count(config.layers, mixer, &LayerConfig::mixer);
}

}  // namespace

KvCache::KvCache(const ModelConfig& config, CacheDTypes dtypes, int64_t pages, int64_t page_size, Device device)
    : dtypes_(dtypes), pages_(pages), page_size_(page_size), device_(device) {
  device.kind == DeviceKind::cpu ? lay_out_by_pages(config) : lay_out_by_layers(config);
}

Tensor KvCache::make(const Shape& shape, DType dtype) const {
  return Tensor::empty(shape, dtype, device_, MemoryTag::kv_cache);
}

// A page of all layers of a kind lies in one piece: memory comes from the system in pages of 2 MiB, as it is first
// touched, and is cleared then. With each layer's pages apart a first token touched 60 of them in a model of 30 layers:
// 120 MiB.
void KvCache::lay_out_by_pages(const ModelConfig& config) {
  const int64_t attending = count_of(config, Mixer::attention), convolving = count_of(config, Mixer::short_conv);
  const int64_t heads = config.num_key_value_heads;
  const DType dtype = dtypes_.keys_and_values;
  const Tensor elements = make({pages_, attending, 2, heads, page_size_, config.head_dim}, dtype);
  const Tensor scales = dtype == DType::i8 ? make({pages_, attending, 2, heads, page_size_}, DType::f32) : Tensor();
  const Tensor products =
      convolving > 0 ? make({pages_, convolving, 1, page_size_, config.hidden_size}, dtypes_.model) : Tensor();
  int64_t attended = 0, convolved = 0;
  for (const LayerConfig& layer : config.layers) {
    if (layer.mixer == Mixer::short_conv) {
      layers_.push_back({products.select(1, convolved++), {}, {}, {}});
      continue;
    }
    const auto side = [attended](const Tensor& of, int64_t index) { return of.select(1, attended).select(1, index); };
    kernels::KvPages made{side(elements, 0), side(elements, 1), {}, {}};
    if (scales.defined()) made.k_scales = side(scales, 0), made.v_scales = side(scales, 1);
    layers_.push_back(std::move(made));
    ++attended;
  }
}

// Devices take pages that are contiguous within a layer (kernels/paged_attention), and have all their memory at once.
void KvCache::lay_out_by_layers(const ModelConfig& config) {
  const DType dtype = dtypes_.keys_and_values;
  const Shape rows{pages_, config.num_key_value_heads, page_size_};
  const Shape elements{pages_, config.num_key_value_heads, page_size_, config.head_dim};
  for (const LayerConfig& layer : config.layers) {
    if (layer.mixer == Mixer::short_conv) {
      layers_.push_back({make({pages_, 1, page_size_, config.hidden_size}, dtypes_.model), {}, {}, {}});
      continue;
    }
    kernels::KvPages made{make(elements, dtype), make(elements, dtype), {}, {}};
    if (dtype == DType::i8) made.k_scales = make(rows, DType::f32), made.v_scales = make(rows, DType::f32);
    layers_.push_back(std::move(made));
  }
}

int64_t KvCache::bytes_per_page(const ModelConfig& config, CacheDTypes dtypes, int64_t page_size) {
  const DType dtype = dtypes.keys_and_values;
  const int64_t row_bytes = config.head_dim * size_of(dtype) + (dtype == DType::i8 ? size_of(DType::f32) : 0);
  return page_size * (count_of(config, Mixer::attention) * 2 * config.num_key_value_heads * row_bytes +
                      count_of(config, Mixer::short_conv) * config.hidden_size * size_of(dtypes.model));
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
