// Pages that lie apart, as nn::KvCache has them: those of all layers side by side.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "kernels/paged_attention/paged_attention.h"
#include "tests/kernels/paged_attention_models.h"

namespace lathe::kernels {
namespace {

using namespace paged_tests;

constexpr int64_t page_count = 9, layers = 3, kv_heads = 3, page_size = 16, head_dim = 64;
constexpr char untouched = 0x5a;

class PagesApart : public ::testing::TestWithParam<std::pair<DType, DType>> {
 protected:
  const DType dtype = GetParam().first, page_dtype = GetParam().second;
  const Shape rows{page_count, layers, 2, kv_heads, page_size};
  Tensor elements = Tensor::empty({page_count, layers, 2, kv_heads, page_size, head_dim}, page_dtype);
  Tensor scales = Tensor::empty(rows, DType::f32);
  RandomStream random{5, RandomPurpose::test};

  static Tensor side(const Tensor& of, int64_t layer, int64_t index) { return of.select(1, layer).select(1, index); }
  KvPages apart(int64_t layer) const {
    KvPages pages{side(elements, layer, 0), side(elements, layer, 1), {}, {}};
    if (page_dtype == DType::i8) pages.k_scales = side(scales, layer, 0), pages.v_scales = side(scales, layer, 1);
    return pages;
  }
  KvPages contiguous() const {
    const Shape shape{page_count, kv_heads, page_size, head_dim}, heads{page_count, kv_heads, page_size};
    KvPages pages{Tensor::zeros(shape, page_dtype), Tensor::zeros(shape, page_dtype), {}, {}};
    if (page_dtype == DType::i8)
      pages.k_scales = Tensor::zeros(heads, DType::f32), pages.v_scales = Tensor::zeros(heads, DType::f32);
    return pages;
  }
  void expect_layer_untouched(int64_t layer) const {
    for (const Tensor& part : {elements, scales})
      for (int64_t page = 0; page < page_count; ++page) {
        const Tensor bytes = part.select(0, page).select(0, layer);
        const char* const first = static_cast<const char*>(bytes.raw());
        EXPECT_TRUE(std::all_of(first, first + bytes.nbytes(), [](char c) { return c == untouched; })) << layer;
      }
  }
};

TEST_P(PagesApart, HaveTheBitsOfContiguousOnesAndLeaveTheirNeighboursAlone) {
  for (const Tensor& part : {elements, scales}) std::memset(part.raw(), untouched, static_cast<size_t>(part.nbytes()));
  const KvPages pages = apart(1), expected = contiguous();
  constexpr int32_t tokens = 70;
  const Tensor k = random_tensor(random, {tokens, kv_heads, head_dim}, dtype);
  const Tensor v = random_tensor(random, {tokens, kv_heads, head_dim}, dtype);
  const AttentionParams params{.scale = 0.125f};
  const auto attend = [&](const KvPages& over, const PagedBatch& batch, int32_t count) {
    RandomStream queries(6, RandomPurpose::test);
    const Tensor q = random_tensor(queries, {count, 2 * kv_heads, head_dim}, dtype);
    const Tensor out = Tensor::empty(q.shape(), dtype);
    paged_attention(out, q, over, batch, params);
    return out;
  };
  const PagedBatch prefill(i32({0, tokens}), i32({tokens}), i32({7, 2, 5, 0, 4}).view({1, 5}), {page_count, page_size});
  for (const KvPages& each : {pages, expected}) kv_append(each, k, v, prefill);
  EXPECT_TRUE(same_bits(attend(pages, prefill, tokens), attend(expected, prefill, tokens)));

  for (const KvPages& each : {pages, expected}) kv_copy_pages(each, i32({2, 4, 8}), i32({8, 3, 1}));
  const PagedBatch decode(i32({0, 1}), i32({tokens}), i32({7, 1, 5, 0, 3}).view({1, 5}), {page_count, page_size});
  const Tensor one_k = k.slice(0, 3, 4), one_v = v.slice(0, 3, 4);
  for (const KvPages& each : {pages, expected}) kv_append(each, one_k, one_v, decode);
  EXPECT_TRUE(same_bits(attend(pages, decode, 1), attend(expected, decode, 1)));
  expect_layer_untouched(0);
  expect_layer_untouched(2);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, PagesApart,
                         ::testing::Values(std::pair{DType::f32, DType::f32}, std::pair{DType::bf16, DType::bf16},
                                           std::pair{DType::f32, DType::i8}, std::pair{DType::bf16, DType::i8},
                                           std::pair{DType::f64, DType::i8}));

TEST(PageScales, OfKeysAndValuesHaveTheSameStrides) {
  const Shape shape{2, 1, 16, 32};
  const Tensor wide = Tensor::zeros({2, 2, 16}, DType::f32);
  const KvPages pages{Tensor::zeros(shape, DType::i8), Tensor::zeros(shape, DType::i8),
                      Tensor::zeros({2, 1, 16}, DType::f32), wide.slice(1, 0, 1)};
  EXPECT_THROW(kv_copy_pages(pages, i32({0}), i32({1})), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
