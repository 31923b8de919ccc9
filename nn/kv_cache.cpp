#include "nn/kv_cache.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/copy/copy.h"

namespace lathe::nn {

namespace {

DType dtype_of_states(DType model) { return model == DType::f64 ? DType::f64 : DType::f32; }

bool has_state(Mixer mixer) { return mixer == Mixer::gated_delta || mixer == Mixer::mamba2; }

// Of KvCache::States, of such a mixer.
struct StateShapes {
  Shape conv, matrices;
};
StateShapes shapes_of_state(const ModelConfig& config, Mixer mixer, int64_t states) {
  if (mixer == Mixer::mamba2) {
    const Mamba2Config& mamba = config.mamba2;
    return {{states, mamba.taps - 1, mamba.heads.xbc_columns()},
            {states, mamba.heads.heads, mamba.heads.state_size, mamba.heads.head_dim}};
  }
  const GatedDeltaConfig& delta = config.gated_delta;
  return {{states, delta.taps - 1, delta.heads.qkv_columns()},
          {states, delta.heads.value_heads, delta.heads.key_dim, delta.heads.value_dim}};
}

}  // namespace

KvCache::KvCache(const ModelConfig& config, CacheDTypes dtypes, int64_t pages, int64_t page_size, Device device,
                 int64_t states)
    : dtypes_(dtypes), pages_(pages), page_size_(page_size), device_(device), state_count_(states) {
  device.kind == DeviceKind::cpu ? lay_out_by_pages(config) : lay_out_by_layers(config);
  make_states(config);
}

Tensor KvCache::make(const Shape& shape, DType dtype) const {
  return Tensor::empty(shape, dtype, device_, MemoryTag::kv_cache);
}

// A page of all layers of a kind lies in one piece: memory comes from the system in pages of 2 MiB, as it is first
// touched, and is cleared then. With each layer's pages apart a first token touched 60 of them in a model of 30 layers:
// 120 MiB.
void KvCache::lay_out_by_pages(const ModelConfig& config) {
  const int64_t attending = config.layers_with(Mixer::attention), convolving = config.layers_with(Mixer::short_conv);
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
    if (has_state(layer.mixer)) {
      layers_.push_back({});
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
    if (has_state(layer.mixer)) {
      layers_.push_back({});
      continue;
    }
    kernels::KvPages made{make(elements, dtype), make(elements, dtype), {}, {}};
    if (dtype == DType::i8) made.k_scales = make(rows, DType::f32), made.v_scales = make(rows, DType::f32);
    layers_.push_back(std::move(made));
  }
}

void KvCache::make_states(const ModelConfig& config) {
  if (!config.has_states()) return;
  for (const LayerConfig& layer : config.layers) {
    if (!has_state(layer.mixer)) {
      states_.push_back({});
      continue;
    }
    const auto [conv, matrices] = shapes_of_state(config, layer.mixer, state_count_);
    states_.push_back({make(conv, dtypes_.model), make(matrices, dtype_of_states(dtypes_.model))});
  }
}

int64_t KvCache::bytes_per_state(const ModelConfig& config, CacheDTypes dtypes) {
  int64_t bytes = 0;
  for (const LayerConfig& layer : config.layers) {
    if (!has_state(layer.mixer)) continue;
    const auto [conv, matrices] = shapes_of_state(config, layer.mixer, 1);
    bytes += conv.numel() * size_of(dtypes.model) + matrices.numel() * size_of(dtype_of_states(dtypes.model));
  }
  return bytes;
}

void KvCache::copy_state(int32_t from, int32_t to) {
  if (from == to) return;
  for (const States& layer : states_) {
    if (!layer.conv.defined()) continue;
    kernels::copy(layer.conv.select(0, to), layer.conv.select(0, from));
    kernels::copy(layer.matrices.select(0, to), layer.matrices.select(0, from));
  }
}

int64_t KvCache::bytes_per_page(const ModelConfig& config, CacheDTypes dtypes, int64_t page_size) {
  const DType dtype = dtypes.keys_and_values;
  const int64_t row_bytes = config.head_dim * size_of(dtype) + (dtype == DType::i8 ? size_of(DType::f32) : 0);
  return page_size * (config.layers_with(Mixer::attention) * 2 * config.num_key_value_heads * row_bytes +
                      config.layers_with(Mixer::short_conv) * config.hidden_size * size_of(dtypes.model));
}

void KvCache::copy_pages(std::span<const int32_t> from, std::span<const int32_t> to) {
  const Tensor source = Tensor::of<int32_t>(from, {static_cast<int64_t>(from.size())});
  const Tensor target = Tensor::of<int32_t>(to, {static_cast<int64_t>(to.size())});
  for (const kernels::KvPages& layer : layers_)
    if (layer.k.defined()) kernels::kv_copy_pages(layer, source, target);
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
