// Keys and values of every layer in pages. Which page belongs to which sequence is the engine's business.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "nn/config.h"

namespace lathe::nn {

class KvCache {
 public:
  static constexpr int64_t default_page_size = 16;  // tokens

  // Throws ResourceError when the pages do not fit into memory.
  KvCache(const ModelConfig& config, DType dtype, int64_t pages, int64_t page_size = default_page_size);

  static int64_t bytes_per_page(const ModelConfig& config, DType dtype, int64_t page_size = default_page_size);

  int64_t page_count() const { return pages_; }
  int64_t page_size() const { return page_size_; }
  // [pages, kv_heads, page_size, head_dim]
  const Tensor& k_pages(int64_t layer) const { return k_[static_cast<size_t>(layer)]; }
  const Tensor& v_pages(int64_t layer) const { return v_[static_cast<size_t>(layer)]; }

 private:
  int64_t pages_, page_size_;
  std::vector<Tensor> k_, v_;
};

}  // namespace lathe::nn
