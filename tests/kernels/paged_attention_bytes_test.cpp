// Paged attention over int8 pages, whose products the CPU may sum as bytes.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/paged_attention/paged_attention.h"
#include "tests/kernels/paged_attention_models.h"

namespace lathe::kernels {
namespace {

using namespace paged_tests;

// One sequence whose pages hold random bytes, and queries for each of its tokens.
class ByteConversation {
 public:
  ByteConversation(const Model& model, int64_t page_size) : model_(model), page_size_(page_size) {
    RandomStream random(11, RandomPurpose::test);
    q = random_tensor(random, {length, model.heads, model.head_dim}, model.dtype);
    const int64_t count = (length + page_size - 1) / page_size;
    for (int64_t i = 0; i < count; ++i) table_.push_back(static_cast<int32_t>(count - 1 - i));
    const Shape elements{count, model.kv_heads, page_size, model.head_dim}, rows{count, model.kv_heads, page_size};
    for (Tensor* side : {&pages.k, &pages.v}) {
      *side = Tensor::empty(elements, DType::i8);
      for (int8_t& x : side->span<int8_t>()) x = static_cast<int8_t>(static_cast<int>(random.below(255)) - 127);
    }
    for (Tensor* scales : {&pages.k_scales, &pages.v_scales}) {
      *scales = Tensor::empty(rows, DType::f32);
      for (float& x : scales->span<float>()) x = 0.002f + 0.018f * static_cast<float>(random.below(1000)) / 1000;
    }
  }

  // Tokens [from, to), with these queries in place of q's.
  Tensor attend(const Tensor& queries, int32_t from, int32_t to) const {
    const PagedBatch batch(i32({0, to - from}), i32({to}), i32(table_).view({1, static_cast<int64_t>(table_.size())}),
                           {pages.k.dim(0), page_size_});
    const Tensor out = Tensor::empty(queries.shape(), queries.dtype());
    paged_attention(out, queries, pages, batch, model_.params);
    return out;
  }
  Tensor attend(int32_t from, int32_t to) const { return attend(q.slice(0, from, to), from, to); }
  // The same in f64.
  Tensor reference(const Tensor& queries, int32_t from, int32_t to) const {
    const Tensor wide = Tensor::empty(queries.shape(), DType::f64);
    for (int64_t i = 0; i < wide.numel(); ++i)
      wide.data<double>()[i] = lathe::testing::load_element(
          static_cast<const std::byte*>(queries.raw()) + i * size_of(queries.dtype()), queries.dtype());
    return attend(wide, from, to);
  }

  static constexpr int32_t length = 150;
  Tensor q;
  KvPages pages;

 private:
  Model model_;
  int64_t page_size_;
  std::vector<int32_t> table_;
};

class OverBytes : public ::testing::TestWithParam<Model> {};

TEST_P(OverBytes, TokensOneByOneAndInPartsHaveTheBitsOfAllAtOnce) {
  everywhere([&] {
    for (const int64_t page_size : {4, 16, 64}) {
      const ByteConversation talk(GetParam(), page_size);
      constexpr int32_t length = ByteConversation::length;
      const Tensor all = talk.attend(0, length);
      for (const int32_t token : {0, 1, 15, 16, 17, 62, 63, 64, 79, 100, 127, 128, 149})
        EXPECT_TRUE(same_bits(talk.attend(token, token + 1), all.slice(0, token, token + 1))) << "token " << token;
      for (const int32_t at : {2, 40, 100, 147})
        EXPECT_TRUE(same_bits(talk.attend(at, length), all.slice(0, at, length))) << "tokens from " << at;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Models, OverBytes,
    ::testing::Values(Model{"gqa3_d64_bf16", 3, 1, 64, {.scale = 0.125f}, DType::bf16},
                      Model{"gqa8_d16_window_bf16", 8, 1, 16, {.scale = 0.25f, .window = 70}, DType::bf16},
                      Model{"d144_softcap_bf16", 2, 1, 144, {.scale = 0.1f, .softcap = 3.0f}, DType::bf16},
                      Model{"mha_d32_bf16", 1, 1, 32, {.scale = 0.2f}, DType::bf16},
                      Model{"gqa6_d48_bf16", 6, 1, 48, {.scale = 0.2f}, DType::bf16},
                      Model{"gqa5_d24_bf16", 5, 1, 24, {.scale = 0.2f}, DType::bf16},
                      Model{"gqa4_d16_f32", 4, 1, 16, {.scale = 0.25f}, DType::f32}),
    [](const auto& info) { return info.param.name; });

TEST(PagedAttention, BytesAddLessThanAHundredthToTheRoundingOfTheResult) {
  for (const int64_t head_dim : {64, 128, 256}) {
    const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
    const ByteConversation talk({"", 4, 1, head_dim, {.scale = scale}, DType::bf16}, 16);
    constexpr int32_t length = ByteConversation::length;
    const Tensor exact = talk.reference(talk.q, 0, length);
    everywhere([&] {
      const Tensor out = talk.attend(0, length);
      double error = 0, rounding = 0;
      for (int64_t i = 0; i < out.numel(); ++i) {
        const double wanted = exact.data<double>()[i];
        error += std::pow(static_cast<double>(static_cast<float>(out.data<bf16>()[i])) - wanted, 2);
        rounding += std::pow(lathe::testing::round_to(DType::bf16, wanted) - wanted, 2);
      }
      EXPECT_LT(std::sqrt(error), 1.01 * std::sqrt(rounding)) << "head_dim " << head_dim;
    });
  }
}

TEST(PagedAttention, QueriesOfAnySizeOverBytes) {
  // The largest element of each query, and whether the rest is 2^-20 of it. A query without any weighs all keys alike.
  struct Query {
    double largest;
    bool uneven;
  };
  const std::vector<Query> queries{{0, false}, {0x1p-133, false}, {0x1.fep-120, true}, {1, true}, {0x1.fep0, false}};
  ByteConversation talk({"", 1, 1, 64, {.scale = 0.125f}, DType::bf16}, 16);
  const auto count = static_cast<int32_t>(queries.size());
  for (int32_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < 64; ++d) {
      const Query& query = queries[static_cast<size_t>(i)];
      const double x = (d % 3 == 0 ? -1.0 : 1.0) * query.largest * (query.uneven && d > 0 ? 0x1p-20 : 1.0);
      talk.q.data<bf16>()[i * 64 + d] = bf16(static_cast<float>(x));
    }
  constexpr int32_t end = ByteConversation::length;
  const Tensor q = talk.q.slice(0, 0, count), exact = talk.reference(q, end - count, end);
  everywhere([&] {
    const Tensor out = talk.attend(q, end - count, end);
    for (int64_t i = 0; i < out.numel(); ++i)
      EXPECT_NEAR(static_cast<float>(out.data<bf16>()[i]), exact.data<double>()[i],
                  0x1p-8 * std::abs(exact.data<double>()[i]) + 0x1p-12)
          << "query " << i / 64;
  });
}

TEST(PagedAttention, AQueryThatIsNotFiniteOverBytesGivesNaNAndLeavesTheOthersAlone) {
  constexpr int32_t end = ByteConversation::length;
  for (const int32_t tokens : {3, 60}) {  // by few rows, by many
    ByteConversation talk({"", 2, 1, 32, {.scale = 0.2f}, DType::bf16}, 16);
    everywhere([&] {
      const Tensor q = talk.q.slice(0, 0, tokens).clone(), clean = talk.attend(q, end - tokens, end);
      q.data<bf16>()[7] = bf16(std::numeric_limits<float>::quiet_NaN());
      q.data<bf16>()[4 * 32 + 9] = bf16(std::numeric_limits<float>::infinity());
      const Tensor out = talk.attend(q, end - tokens, end);
      for (int64_t row = 0; row < 2 * tokens; ++row)
        for (int64_t d = 0; d < 32; ++d) {
          const auto x = static_cast<float>(out.data<bf16>()[row * 32 + d]);
          if (row == 0 || row == 4) {
            EXPECT_TRUE(std::isnan(x)) << "row " << row << ", element " << d;
          } else {
            EXPECT_EQ(x, static_cast<float>(clean.data<bf16>()[row * 32 + d])) << "row " << row << ", element " << d;
          }
        }
    });
  }
}

TEST(PagedAttention, ValuesOfZeroOverBytesGiveZero) {
  for (const int32_t tokens : {1, 40}) {
    ByteConversation talk({"", 2, 1, 32, {.scale = 0.2f}, DType::bf16}, 16);
    for (float& scale : talk.pages.v_scales.span<float>()) scale = 0;
    everywhere([&] {
      const Tensor out = talk.attend(ByteConversation::length - tokens, ByteConversation::length);
      for (const bf16 x : out.span<bf16>()) EXPECT_EQ(static_cast<float>(x), 0.0f);
    });
  }
}

}  // namespace
}  // namespace lathe::kernels
