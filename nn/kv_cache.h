// What every layer keeps of the tokens before. In pages: keys and values, or, where it convolves, the products that a
// short convolution sees (kernels/short_conv/short_conv.h). Of each sequence as a whole: the state of a gated delta net
// or of Mamba-2. Which page and which state belongs to which sequence is the engine's business.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/paged_attention/paged_attention.h"
#include "nn/config.h"

namespace lathe::nn {

// Of the elements in pages. Keys and values may be held shorter than the model computes: f32 | bf16 | f16 | i8 (f64 for
// a model in f64). Products are of the model's own dtype, since a token of a step is computed with those of the step
// itself as they are.
struct CacheDTypes {
  DType keys_and_values, model;
  CacheDTypes(DType both) : keys_and_values(both), model(both) {}
  CacheDTypes(DType keys_and_values, DType model) : keys_and_values(keys_and_values), model(model) {}
};

class KvCache {
 public:
  static constexpr int64_t default_page_size = 16;  // tokens

  // Throws ResourceError when the pages do not fit into memory. `states`: of so many sequences, for a config that
  // has_states(); on the CPU they take memory as they are used.
  KvCache(const ModelConfig& config, CacheDTypes dtypes, int64_t pages, int64_t page_size = default_page_size,
          Device device = {}, int64_t states = 0);

  // Of all layers, with the scales of i8.
  static int64_t bytes_per_page(const ModelConfig& config, CacheDTypes dtypes, int64_t page_size = default_page_size);

  // Of one sequence in all layers, whatever its length.
  static int64_t bytes_per_state(const ModelConfig& config, CacheDTypes dtypes);

  DType dtype() const { return dtypes_.keys_and_values; }
  int64_t page_count() const { return pages_; }
  int64_t page_size() const { return page_size_; }
  // Of a layer that attends.
  const kernels::KvPages& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  // Of a layer that convolves: [pages, page_size, hidden].
  Tensor products(int64_t index) const { return layers_[static_cast<size_t>(index)].k.select(1, 0); }
  // Of a layer that is a gated delta net or Mamba-2.
  struct States {
    Tensor conv;      // [states, taps − 1, its columns] of the model's dtype: what its convolution saw last
    Tensor matrices;  // of heads, f32 (f64 for f64): [states, value_heads, key_head_dim, value_head_dim] of a gated
                      // delta net, [states, heads, state_size, head_dim] of Mamba-2
  };
  const States& states(int64_t index) const { return states_[static_cast<size_t>(index)]; }
  int64_t state_count() const { return state_count_; }
  // The shape that a step's PagedBatch is made for.
  kernels::PagedBatch::Pages shape() const { return {pages_, page_size_, device_}; }

  // Copy-on-write: in every layer page to[i] = page from[i], i ascending.
  void copy_pages(std::span<const int32_t> from, std::span<const int32_t> to);
  // In every layer that has them state `to` = state `from`.
  void copy_state(int32_t from, int32_t to);

 private:
  Tensor make(const Shape& shape, DType dtype) const;
  void lay_out_by_pages(const ModelConfig& config);
  void lay_out_by_layers(const ModelConfig& config);
  void make_states(const ModelConfig& config);

  CacheDTypes dtypes_;
  int64_t pages_, page_size_;
  Device device_;
  std::vector<kernels::KvPages> layers_;  // products as keys of one head, without values; none of states
  int64_t state_count_ = 0;
  std::vector<States> states_;  // of each layer
};

// "auto" is the model's own dtype; else f32, bf16, f16, int8. Throws ConfigError for anything else.
DType parse_kv_cache_dtype(std::string_view name, DType model_dtype);

}  // namespace lathe::nn
