// The cache's memory, and copy-on-write in every layer.
#include "nn/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/memory.h"

namespace lathe::nn {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.layers.resize(3);
  config.num_key_value_heads = 2;
  config.head_dim = 24;
  return config;
}

int64_t nbytes_of(const KvCache& cache) {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < 3; ++layer) {
    const kernels::KvPages& pages = cache.layer(layer);
    for (const Tensor& part : {pages.k, pages.v, pages.k_scales, pages.v_scales})
      if (part.defined()) bytes += part.nbytes();
  }
  return bytes;
}

TEST(KvCache, TakesTheBytesItAnnounces) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i8}) {
    const KvCache cache(small_config(), dtype, 5, 32);
    EXPECT_EQ(nbytes_of(cache), 5 * KvCache::bytes_per_page(small_config(), dtype, 32)) << name_of(dtype);
    EXPECT_EQ(cache.dtype(), dtype);
  }
  // 24 elements and one scale: 28 bytes for the 48 of bf16.
  EXPECT_EQ(48 * KvCache::bytes_per_page(small_config(), DType::i8),
            28 * KvCache::bytes_per_page(small_config(), DType::bf16));
}

TEST(KvCache, CopiesPagesInEveryLayer) {
  KvCache cache(small_config(), DType::i8, 4);
  for (int64_t layer = 0; layer < 3; ++layer) {
    const kernels::KvPages& pages = cache.layer(layer);
    for (const Tensor& part : {pages.k, pages.v, pages.k_scales, pages.v_scales})
      for (int page = 0; page < 4; ++page)
        std::memset(part.select(0, page).raw(), 1 + static_cast<int>(layer) * 4 + page,
                    static_cast<size_t>(part.select(0, page).nbytes()));
  }
  const std::vector<int32_t> from{0, 3}, to{2, 1};
  cache.copy_pages(from, to);
  for (int64_t layer = 0; layer < 3; ++layer) {
    const kernels::KvPages& pages = cache.layer(layer);
    for (const Tensor& part : {pages.k, pages.v, pages.k_scales, pages.v_scales}) {
      for (const auto& [page, source] : {std::pair{0, 0}, {1, 3}, {2, 0}, {3, 3}})
        EXPECT_EQ(std::memcmp(part.select(0, page).raw(), part.select(0, source).raw(),
                              static_cast<size_t>(part.select(0, page).nbytes())),
                  0);
      EXPECT_EQ(*static_cast<const char*>(part.select(0, 2).raw()), 1 + static_cast<int>(layer) * 4);
    }
  }
}

// Layers 0 and 2 convolve.
ModelConfig mixed_config() {
  ModelConfig config = small_config();
  config.hidden_size = 40;
  config.layers[0].mixer = config.layers[2].mixer = Mixer::short_conv;
  return config;
}

TEST(KvCache, LayersThatConvolveKeepOneRowOfEachTokenInTheModelsOwnType) {
  const KvCache cache(mixed_config(), {DType::i8, DType::bf16}, 5, 32);
  int64_t bytes = 0;
  for (const Tensor& part : {cache.products(0), cache.products(2), cache.layer(1).k, cache.layer(1).v,
                             cache.layer(1).k_scales, cache.layer(1).v_scales})
    bytes += part.nbytes();
  EXPECT_EQ(cache.products(2).shape(), (Shape{5, 32, 40}));
  EXPECT_EQ(cache.products(2).dtype(), DType::bf16);
  EXPECT_EQ(bytes, 5 * KvCache::bytes_per_page(mixed_config(), {DType::i8, DType::bf16}, 32));
}

TEST(KvCache, RowsOfLayersThatConvolveAreCopiedWithTheirPages) {
  KvCache cache(mixed_config(), DType::f32, 4);
  for (const int64_t layer : {0, 2})
    for (int page = 0; page < 4; ++page)
      std::memset(cache.products(layer).select(0, page).raw(), 1 + static_cast<int>(layer) * 4 + page, 16 * 40 * 4);
  cache.copy_pages(std::vector<int32_t>{0, 3}, std::vector<int32_t>{2, 1});
  for (const int64_t layer : {0, 2})
    for (const auto& [page, source] : {std::pair{0, 0}, {1, 3}, {2, 0}, {3, 3}})
      EXPECT_EQ(*static_cast<const char*>(cache.products(layer).select(0, page).raw()), 1 + layer * 4 + source);
}

// The first tokens of a sequence touch little memory, whatever the number of layers.
TEST(KvCache, APageOfAllLayersLiesInOnePiece) {
  for (const DType dtype : {DType::bf16, DType::i8}) {
    const KvCache cache(small_config(), dtype, 100);
    std::vector<const char*> first, end;
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (const Tensor& part : {cache.layer(layer).k, cache.layer(layer).v}) {
        first.push_back(static_cast<const char*>(part.select(0, 7).raw()));
        end.push_back(first.back() + part.select(0, 7).nbytes());
      }
    }
    EXPECT_EQ(*std::ranges::max_element(end) - *std::ranges::min_element(first),
              2 * 3 * 2 * 16 * 24 * static_cast<int64_t>(size_of(dtype)));
  }
}

TEST(KvCache, DtypesByName) {
  EXPECT_EQ(parse_kv_cache_dtype("auto", DType::bf16), DType::bf16);
  EXPECT_EQ(parse_kv_cache_dtype("int8", DType::bf16), DType::i8);
  EXPECT_EQ(parse_kv_cache_dtype("f16", DType::f32), DType::f16);
  EXPECT_THROW(parse_kv_cache_dtype("i8", DType::f32), ConfigError);
}

}  // namespace
}  // namespace lathe::nn
