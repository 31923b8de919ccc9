#include "kernels/paged_attention/paged_attention.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "tests/kernels/paged_attention_cases.h"
#include "tests/kernels/paged_attention_models.h"
#include "tests/support/kernel_checks.h"

LATHE_CHECK_OPERATIONS(lathe::testing::paged_attention_operations());

namespace lathe::kernels {
namespace {

using namespace paged_tests;

void round_to(DType dtype, const Tensor& x) {
  for (int64_t i = 0; i < x.numel(); ++i) {
    std::byte* element = static_cast<std::byte*>(x.raw()) + i * size_of(x.dtype());
    const double value = lathe::testing::load_element(element, x.dtype());
    lathe::testing::store_element(element, x.dtype(), lathe::testing::round_to(dtype, value));
  }
}

// Sequences with their queries, keys and values, what attention_forward makes of them packed, and a cache of pages that
// starts as NaN everywhere, so that a read of what was never appended shows.
class Conversations {
 public:
  Conversations(const Model& model, std::vector<int32_t> lengths, int64_t page_size)
      : model_(model), page_size_(page_size), lengths_(std::move(lengths)) {
    RandomStream random(7, RandomPurpose::test);
    bounds_ = {0};
    for (int32_t length : lengths_) bounds_.push_back(bounds_.back() + length);
    const int64_t tokens = bounds_.back();
    q = random_tensor(random, {tokens, model.heads, model.head_dim}, model.dtype);
    k_ = random_tensor(random, {tokens, model.kv_heads, model.head_dim}, model.dtype);
    v_ = random_tensor(random, {tokens, model.kv_heads, model.head_dim}, model.dtype);
    trained = Tensor::empty(q.shape(), model.dtype);
    trained_lse_ = lse_of(q);
    // Shorter pages round: what is trained on has been rounded before.
    for (const Tensor& x : {k_, v_}) round_to(model.page_dtype, x);
    attention_forward({.out = trained,
                       .lse = trained_lse_,
                       .q = q,
                       .k = k_,
                       .v = v_,
                       .cu_seqlens = i32(bounds_),
                       .params = model.params});

    max_pages_ = (*std::max_element(lengths_.begin(), lengths_.end()) + page_size - 1) / page_size;
    const int64_t pages = max_pages_ * static_cast<int64_t>(lengths_.size()) + 1;
    order_.resize(static_cast<size_t>(pages));
    std::iota(order_.begin(), order_.end(), 0);
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.below(i)]);
    const Shape elements{pages, model.kv_heads, page_size, model.head_dim};
    pages_ = {Tensor::empty(elements, model.page_dtype), Tensor::empty(elements, model.page_dtype), {}, {}};
    forget();
  }

  void forget() {
    for (const Tensor& side : {pages_.k, pages_.v}) std::memset(side.raw(), 0xff, static_cast<size_t>(side.nbytes()));
  }

  // One step of serving: the tokens [from, from + count) of each of these sequences, appended and attended together.
  // Returns whether all of their outputs, and their log-sum-exps, have the bits of training.
  struct Part {
    int sequence;
    int64_t from, count;
  };
  bool step(const std::vector<Part>& parts) {
    std::vector<int32_t> bounds{0}, contexts, table;
    std::vector<int64_t> rows;
    for (const Part& part : parts) {
      bounds.push_back(bounds.back() + static_cast<int32_t>(part.count));
      contexts.push_back(static_cast<int32_t>(part.from + part.count));
      for (int64_t i = 0; i < max_pages_; ++i) table.push_back(page(part.sequence, i));
      for (int64_t t = part.from; t < part.from + part.count; ++t)
        rows.push_back(bounds_[static_cast<size_t>(part.sequence)] + t);
    }
    const Tensor queries = gather(q, rows), out = Tensor::empty(queries.shape(), model_.dtype), lse = lse_of(queries);
    const PagedBatch batch(i32(bounds), i32(contexts),
                           i32(table).view({static_cast<int64_t>(parts.size()), max_pages_}),
                           {pages_.k.dim(0), page_size_});
    kv_append(pages_, gather(k_, rows), gather(v_, rows), batch);
    paged_attention(out, queries, pages_, batch, model_.params, lse);
    for (size_t i = 0; i < rows.size(); ++i)
      if (!same_bits(cast(lse.select(1, static_cast<int64_t>(i)), lse.dtype()),
                     cast(trained_lse_.select(1, rows[i]), lse.dtype())))
        return false;
    return same_bits(out, gather(trained, rows));
  }

  int count() const { return static_cast<int>(lengths_.size()); }
  int64_t length(int sequence) const { return lengths_[static_cast<size_t>(sequence)]; }
  const std::vector<int32_t>& bounds() const { return bounds_; }
  // attention_forward of one sequence by itself.
  bool alone_is_trained(int s) const {
    const int64_t begin = bounds_[static_cast<size_t>(s)], end = begin + length(s);
    const Tensor out = Tensor::empty({end - begin, model_.heads, model_.head_dim}, model_.dtype);
    attention_forward({.out = out,
                       .q = q.slice(0, begin, end),
                       .k = k_.slice(0, begin, end),
                       .v = v_.slice(0, begin, end),
                       .cu_seqlens = i32({0, static_cast<int32_t>(length(s))}),
                       .params = model_.params});
    return same_bits(out, trained.slice(0, begin, end));
  }

  Tensor q, trained;

 private:
  int32_t page(int sequence, int64_t index) const { return order_[static_cast<size_t>(sequence * max_pages_ + index)]; }
  static Tensor lse_of(const Tensor& queries) {
    return Tensor::empty({queries.dim(1), queries.dim(0)}, queries.dtype() == DType::f64 ? DType::f64 : DType::f32);
  }
  static Tensor gather(const Tensor& x, const std::vector<int64_t>& rows) {
    const Tensor out = Tensor::empty({static_cast<int64_t>(rows.size()), x.dim(1), x.dim(2)}, x.dtype());
    const int64_t bytes = x.dim(1) * x.dim(2) * size_of(x.dtype());
    for (size_t i = 0; i < rows.size(); ++i)
      std::memcpy(static_cast<char*>(out.raw()) + static_cast<int64_t>(i) * bytes,
                  static_cast<char*>(x.raw()) + rows[i] * bytes, static_cast<size_t>(bytes));
    return out;
  }

  Model model_;
  int64_t page_size_, max_pages_ = 0;
  std::vector<int32_t> lengths_, bounds_, order_;
  Tensor k_, v_, trained_lse_;
  KvPages pages_;
};

class OneOrder : public ::testing::TestWithParam<Model> {};

TEST_P(OneOrder, PrefillInPagesOfAnySizeHasTheBitsOfTraining) {
  everywhere([&] {
    for (const int64_t page_size : {16, 32, 64}) {
      Conversations talk(GetParam(), {1, 63, 64, 65, 200}, page_size);
      std::vector<Conversations::Part> all;
      for (int s = 0; s < talk.count(); ++s) all.push_back({s, 0, talk.length(s)});
      EXPECT_TRUE(talk.step(all)) << "pages of " << page_size;
    }
  });
}

TEST_P(OneOrder, APackedSequenceHasTheBitsOfItselfAlone) {
  everywhere([&] {
    const Conversations talk(GetParam(), {1, 63, 0, 64, 65, 200}, 16);
    for (int s = 0; s < talk.count(); ++s) EXPECT_TRUE(talk.alone_is_trained(s)) << "sequence " << s;
  });
}

TEST_P(OneOrder, PrefillMayBeSplitAnywhere) {
  RandomStream random(3, RandomPurpose::test);
  everywhere([&] {
    Conversations talk(GetParam(), {65, 200}, 16);
    for (int s = 0; s < talk.count(); ++s) {
      for (int64_t at = 0; at < talk.length(s);) {
        const int64_t count = std::min<int64_t>(talk.length(s) - at, 1 + static_cast<int64_t>(random.below(70)));
        EXPECT_TRUE(talk.step({{s, at, count}}))
            << "sequence " << s << ", tokens " << at << " and " << count - 1 << " after";
        at += count;
      }
    }
  });
}

TEST_P(OneOrder, DecodingOneByOneHasTheBitsOfTraining) {
  everywhere([&] {
    Conversations talk(GetParam(), {130}, 16);
    EXPECT_TRUE(talk.step({{0, 0, 60}}));
    for (int64_t t = 60; t < 130; ++t) EXPECT_TRUE(talk.step({{0, t, 1}})) << "token " << t;
  });
}

TEST_P(OneOrder, ABatchMayMixPrefillAndDecode) {
  everywhere([&] {
    Conversations talk(GetParam(), {70, 140, 200, 66}, 32);
    EXPECT_TRUE(talk.step({{0, 0, 69}, {2, 0, 30}}));
    EXPECT_TRUE(talk.step({{0, 69, 1}, {1, 0, 100}, {2, 30, 101}}));
    EXPECT_TRUE(talk.step({{3, 0, 65}, {1, 100, 1}, {2, 131, 1}}));
    EXPECT_TRUE(talk.step({{1, 101, 39}, {2, 132, 68}, {3, 65, 1}}));
  });
}

INSTANTIATE_TEST_SUITE_P(
    Models, OneOrder,
    ::testing::Values(
        Model{"smollm2_f32", 9, 3, 64, {.scale = 0.125f}, DType::f32},
        Model{"smollm2_bf16", 9, 3, 64, {.scale = 0.125f}, DType::bf16},
        Model{"gqa8_window_softcap_f32", 8, 1, 16, {.scale = 0.25f, .window = 50, .softcap = 2.0f}, DType::f32},
        Model{"mha_d5_window_bf16", 3, 3, 5, {.scale = 0.4f, .window = 64}, DType::bf16},
        Model{"d80_f32", 2, 1, 80, {.scale = 0.1f}, DType::f32},
        Model{"gqa3_d16_f16", 3, 1, 16, {.scale = 0.25f}, DType::f16},
        Model{"d24_f32_in_bf16", 4, 2, 24, {.scale = 0.2f, .window = 70}, DType::f32, DType::bf16},
        Model{"d16_f32_in_f16", 2, 1, 16, {.scale = 0.25f}, DType::f32, DType::f16},
        Model{"f64", 2, 1, 6, {.scale = 0.4f, .window = 90, .softcap = 4.0f}, DType::f64}),
    [](const auto& info) { return info.param.name; });

// ---- pages and errors ----

// Two sequences: the first appends its token 16, the second its tokens 0 and 1.
PagedBatch two_sequences(const Tensor& cu_seqlens = i32({0, 1, 3}), const Tensor& context_lens = i32({17, 2}),
                         const Tensor& block_table = i32({2, 1, 0, -1}).view({2, 2}),
                         PagedBatch::Pages pages = {3, 16}) {
  return PagedBatch(cu_seqlens, context_lens, block_table, pages);
}

KvPages zero_pages(DType dtype, int64_t page_size = 16) {
  KvPages pages{Tensor::zeros({3, 2, page_size, 5}, dtype), Tensor::zeros({3, 2, page_size, 5}, dtype), {}, {}};
  if (dtype == DType::i8)
    pages.k_scales = Tensor::zeros({3, 2, page_size}, DType::f32), pages.v_scales = pages.k_scales.clone();
  return pages;
}

TEST(PagedBatch, PlacesTokensAndMeasures) {
  const PagedBatch batch = two_sequences();
  EXPECT_EQ(batch.page_of(0), 1);
  EXPECT_EQ(batch.offset_of(0), 0);
  EXPECT_EQ(batch.page_of(2), 0);
  EXPECT_EQ(batch.offset_of(2), 1);
  EXPECT_EQ(batch.tokens(), 3);
  EXPECT_EQ(batch.longest(), 17);
  EXPECT_EQ(batch.most_tokens(), 2);
  EXPECT_EQ(batch.on_device().contexts[1], 2);
  EXPECT_EQ(batch.on_device().block_table[2], 0);
  EXPECT_EQ(batch.on_device().token_offset[2], 1);
}

TEST(PagedBatch, RejectsWhatDoesNotFit) {
  const Tensor bounds = i32({0, 1, 3}), lengths = i32({17, 2}), table = i32({2, 1, 0, -1}).view({2, 2});
  const PagedBatch::Pages pages{3, 16};
  EXPECT_NO_THROW(PagedBatch(bounds, lengths, table, pages));
  EXPECT_THROW(PagedBatch(bounds, lengths, table, {2, 16}), ShapeError) << "a page past the cache";
  EXPECT_THROW(PagedBatch(bounds, i32({17, 17}), table, pages), ShapeError) << "a page below 0";
  EXPECT_THROW(PagedBatch(bounds, i32({33, 2}), table, pages), ShapeError) << "more keys than pages";
  EXPECT_THROW(PagedBatch(bounds, i32({17, 1}), table, pages), ShapeError) << "fewer keys than new tokens";
  EXPECT_THROW(PagedBatch(i32({0, 4, 3}), lengths, table, pages), ShapeError) << "falling cu_seqlens";
  EXPECT_THROW(PagedBatch(i32({1, 2, 3}), lengths, table, pages), ShapeError) << "cu_seqlens from 1";
  EXPECT_THROW(PagedBatch(i32({0, 3}), lengths, table, pages), ShapeError) << "cu_seqlens of other sequences";
  EXPECT_THROW(PagedBatch(bounds, lengths, i32({2, 1}).view({1, 2}), pages), ShapeError) << "a table of others";
}

TEST(KvAppend, WritesTheSlotsAndNothingElse) {
  RandomStream random(5, RandomPurpose::test);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    const KvPages pages = zero_pages(dtype);
    const Tensor k = random_tensor(random, {3, 2, 5}, dtype), v = random_tensor(random, {3, 2, 5}, dtype);
    kv_append(pages, k, v, two_sequences());
    for (const auto& [side, x] : {std::pair{pages.k, k}, std::pair{pages.v, v}}) {
      for (int64_t slot = 0; slot < 3 * 16; ++slot) {
        for (int64_t head = 0; head < 2; ++head) {
          const int64_t token = slot == 16 ? 0 : slot == 0 ? 1 : slot == 1 ? 2 : -1;
          const Tensor row = side.select(0, slot / 16).select(0, head).select(0, slot % 16);
          const Tensor wanted = token < 0 ? Tensor::zeros({5}, dtype) : x.select(0, token).select(0, head);
          EXPECT_TRUE(same_bits(row, wanted)) << "slot " << slot << ", head " << head;
        }
      }
    }
  }
}

TEST(KvAppend, QuantisesARowByItsLargestElement) {
  const KvPages pages = zero_pages(DType::i8);
  const std::vector<float> row{-2.54f, 0.03f, 0.01f, 2.0f, -0.0001f}, tiny{1e-31f, 0, 0, -1e-31f, 0};
  std::vector<float> rows;
  for (int token = 0; token < 3; ++token)
    for (int head = 0; head < 2; ++head)
      rows.insert(rows.end(), (head == 0 ? row : tiny).begin(), (head == 0 ? row : tiny).end());
  const Tensor k = Tensor::of<float>(rows, {3, 2, 5});
  kv_append(pages, k, k, two_sequences());
  EXPECT_EQ(pages.k_scales.data<float>()[0], 2.54f / 127);
  const std::vector<int8_t> expected{-127, 2, 0, 100, 0};  // 1.5 goes to 2 and 0.5 to 0: the even ones
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), pages.k.data<int8_t>()));
  EXPECT_EQ(pages.v_scales.data<float>()[16], 0.0f) << "below 2^-100 a row is zero";
  EXPECT_EQ(pages.k.select(0, 0).select(0, 1).data<int8_t>()[0], 0);
}

TEST(KvAppend, RejectsWhatDoesNotFit) {
  const Tensor rows = Tensor::zeros({3, 2, 5}, DType::f32);
  const KvPages pages = zero_pages(DType::f32);
  EXPECT_NO_THROW(kv_append(pages, rows, rows, two_sequences()));
  const auto rejected = [&](const KvPages& to, const Tensor& k, const Tensor& v, const PagedBatch& batch) {
    EXPECT_THROW(kv_append(to, k, v, batch), ShapeError);
  };
  rejected(pages, rows, Tensor::zeros({3, 1, 5}, DType::f32), two_sequences());
  rejected(pages, rows, Tensor::zeros({3, 2, 5}, DType::bf16), two_sequences());
  rejected(pages, Tensor::zeros({2, 2, 5}, DType::f32), rows, two_sequences());
  rejected(zero_pages(DType::f32, 8), rows, rows, two_sequences());
  rejected({pages.k, Tensor::zeros({3, 2, 8, 5}, DType::f32), {}, {}}, rows, rows, two_sequences());
  rejected({pages.k, pages.v.slice(0, 0, 2), {}, {}}, rows, rows, two_sequences());
  KvPages no_scales = zero_pages(DType::i8);
  no_scales.v_scales = {};
  rejected(no_scales, rows, rows, two_sequences());
}

// Calls body with a copy of the pages on the device, and copies back what it made of them.
template <class Body>
void on_device(Device device, const KvPages& pages, Body body) {
  const auto there = [&](const Tensor& x) {
    if (!x.defined()) return x;
    const Tensor result = Tensor::empty(x.shape(), x.dtype(), device);
    copy(result, x);
    return result;
  };
  const KvPages moved{there(pages.k), there(pages.v), there(pages.k_scales), there(pages.v_scales)};
  body(moved);
  for (const auto& [to, from] : {std::pair{pages.k, moved.k}, std::pair{pages.v, moved.v},
                                 std::pair{pages.k_scales, moved.k_scales}, std::pair{pages.v_scales, moved.v_scales}})
    if (to.defined()) copy(to, from);
}

std::vector<Device> devices_here() {
  std::vector<Device> devices{{}, {DeviceKind::simt}};
  if (why_unavailable({DeviceKind::cuda}).empty()) devices.push_back({DeviceKind::cuda});
  return devices;
}

TEST(KvCopyPages, CopiesInOrderOnEveryDevice) {
  RandomStream random(6, RandomPurpose::test);
  for (const Device device : devices_here()) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i8}) {
      const auto make = [&] { return random_tensor(random, {4, 2, 4, 3}, dtype); };
      KvPages pages{make(), make(), {}, {}};
      if (dtype == DType::i8)
        pages.k_scales = random_tensor(random, {4, 2, 4}, DType::f32), pages.v_scales = pages.k_scales.clone();
      const KvPages before{pages.k.clone(), pages.v.clone(), {}, {}};
      const Tensor scales_before = dtype == DType::i8 ? pages.k_scales.clone() : Tensor{};
      on_device(device, pages, [](const KvPages& there) {
        kv_copy_pages(there, i32({0, 1, 2}), i32({1, 3, 2}));  // page 1's new content goes on to 3
      });
      for (const auto& [page, source] : {std::pair{0, 0}, {1, 0}, {2, 2}, {3, 0}}) {
        EXPECT_TRUE(same_bits(pages.k.select(0, page), before.k.select(0, source))) << "page " << page;
        EXPECT_TRUE(same_bits(pages.v.select(0, page), before.v.select(0, source))) << "page " << page;
        if (dtype != DType::i8) continue;
        EXPECT_TRUE(same_bits(pages.k_scales.select(0, page), scales_before.select(0, source)));
        EXPECT_TRUE(same_bits(pages.v_scales.select(0, page), scales_before.select(0, source)));
      }
      EXPECT_THROW(kv_copy_pages(pages, i32({4}), i32({0})), ShapeError);
      EXPECT_THROW(kv_copy_pages(pages, i32({0}), i32({-1})), ShapeError);
      EXPECT_THROW(kv_copy_pages(pages, i32({0, 1}), i32({2})), ShapeError);
    }
  }
}

// ---- devices ----

// One sequence on a device: what attention_forward gives for it there, and the same by way of pages.
class DeviceConversation {
 public:
  DeviceConversation(const Model& model, Device device) : model_(model), device_(device) {
    RandomStream random(9, RandomPurpose::test);
    q_ = random_tensor(random, {length, model.heads, model.head_dim}, model.dtype);
    k_ = random_tensor(random, {length, model.kv_heads, model.head_dim}, model.dtype);
    v_ = random_tensor(random, k_.shape(), model.dtype);
    const Tensor out = Tensor::empty(q_.shape(), model.dtype, device);
    const Tensor lse = Tensor::empty({model.heads, length}, DType::f32, device);
    attention_forward({.out = out,
                       .lse = lse,
                       .q = moved(q_, device),
                       .k = moved(k_, device),
                       .v = moved(v_, device),
                       .cu_seqlens = i32({0, length}),
                       .params = model.params});
    trained_ = moved(out, {});
    trained_lse_ = moved(lse, {});
    const Tensor empty = Tensor::empty({page_count, model.kv_heads, page_size, model.head_dim}, model.dtype);
    std::memset(empty.raw(), 0xff, static_cast<size_t>(empty.nbytes()));
    pages_ = {moved(empty, device), moved(empty, device), {}, {}};
  }

  // Tokens [from, to), as so many sequences that share the pages. Returns whether each, and its log-sum-exp, has the
  // bits of training.
  bool step(int32_t from, int32_t to, int copies = 1) {
    const int32_t count = to - from;
    std::vector<int32_t> bounds{0}, contexts, table;
    for (int s = 0; s < copies; ++s) {
      bounds.push_back(bounds.back() + count);
      contexts.push_back(to);
      for (int32_t i = 0; i < page_count; ++i) table.push_back(page_count - 1 - i);
    }
    const PagedBatch batch(i32(bounds), i32(contexts), i32(table).view({copies, page_count}),
                           {page_count, page_size, device_});
    const auto rows = [&](const Tensor& x) { return moved(repeat(x.slice(0, from, to), copies), device_); };
    kv_append(pages_, rows(k_), rows(v_), batch);
    const Tensor out = Tensor::empty({copies * count, model_.heads, model_.head_dim}, model_.dtype, device_);
    const Tensor lse = Tensor::empty({model_.heads, copies * count}, DType::f32, device_);
    paged_attention(out, rows(q_), pages_, batch, model_.params, lse);
    const Tensor found = moved(lse, {}), expected = cast(trained_lse_.slice(1, from, to), DType::f32);
    for (int s = 0; s < copies; ++s)
      if (!same_bits(cast(found.slice(1, s * count, (s + 1) * count), DType::f32), expected)) return false;
    return same_bits(moved(out, {}), repeat(trained_.slice(0, from, to), copies));
  }

  static constexpr int32_t length = 150, page_size = 16, page_count = 10;

 private:
  static Tensor repeat(const Tensor& x, int copies) {
    const Tensor all = Tensor::empty({copies * x.dim(0), x.dim(1), x.dim(2)}, x.dtype());
    for (int s = 0; s < copies; ++s)
      std::memcpy(static_cast<char*>(all.raw()) + s * x.nbytes(), x.raw(), static_cast<size_t>(x.nbytes()));
    return all;
  }

  Model model_;
  Device device_;
  Tensor q_, k_, v_, trained_, trained_lse_;
  KvPages pages_;
};

TEST(PagedAttention, OnADeviceHasTheBitsOfAttentionThere) {
  for (const Device device : devices_here()) {
    if (device == Device{}) continue;  // OneOrder
    for (const Model& model :
         {Model{"f32", 3, 1, 24, {.scale = 0.2f}, DType::f32},
          Model{"f32_window_softcap", 2, 2, 8, {.scale = 0.4f, .window = 70, .softcap = 3}, DType::f32},
          Model{"bf16", 3, 1, 80, {.scale = 0.1f}, DType::bf16},
          Model{"bf16_window", 4, 1, 16, {.scale = 0.3f, .window = 65}, DType::bf16},
          Model{"f16_softcap", 2, 2, 16, {.scale = 0.3f, .softcap = 2}, DType::f16}}) {
      SCOPED_TRACE(to_string(device) + ", " + model.name);
      DeviceConversation talk(model, device);
      EXPECT_TRUE(talk.step(0, 100)) << "prefill";
      EXPECT_TRUE(talk.step(100, 141)) << "prefill goes on";
      EXPECT_TRUE(talk.step(141, 143)) << "two tokens at once";
      for (const int32_t token : {143, 144}) EXPECT_TRUE(talk.step(token, token + 1)) << "decode, split into runs";
      EXPECT_TRUE(talk.step(145, 146, 5)) << "decode of five, runs of two chunks";
      EXPECT_TRUE(talk.step(146, 147, 24)) << "decode of many, unsplit";
    }
  }
}

// A valid call of two sequences, to be spoilt one argument at a time.
struct PagedCall {
  Tensor out = Tensor::zeros({3, 4, 8}, DType::f32), q = Tensor::zeros({3, 4, 8}, DType::f32);
  KvPages pages{Tensor::zeros({3, 2, 16, 8}, DType::f32), Tensor::zeros({3, 2, 16, 8}, DType::f32), {}, {}};
  AttentionParams params;
  Tensor lse = Tensor::zeros({4, 3}, DType::f32);
  void run() const { paged_attention(out, q, pages, two_sequences(), params, lse); }
};

template <class Change>
void expect_rejected(const char* what, Change change) {
  PagedCall call;
  change(call);
  EXPECT_THROW(call.run(), ShapeError) << what;
}

TEST(PagedAttention, RejectsWhatDoesNotFit) {
  EXPECT_NO_THROW(PagedCall{}.run());
  const auto both = [](PagedCall& c, const Shape& shape, DType dtype = DType::f32) {
    c.pages.k = c.pages.v = Tensor::zeros(shape, dtype);
  };
  expect_rejected("other tokens", [](PagedCall& c) { c.q = c.out = Tensor::zeros({2, 4, 8}, DType::f32); });
  expect_rejected("fewer pages than the batch", [&](PagedCall& c) { both(c, {2, 2, 16, 8}); });
  expect_rejected("another page size than the batch", [&](PagedCall& c) { both(c, {3, 2, 32, 8}); });
  expect_rejected("a page size that does not divide a chunk", [&](PagedCall& c) { both(c, {3, 2, 48, 8}); });
  expect_rejected("another head size", [&](PagedCall& c) { both(c, {3, 2, 16, 4}); });
  expect_rejected("heads that are no multiple", [&](PagedCall& c) { both(c, {3, 3, 16, 8}); });
  expect_rejected("i8 without scales", [&](PagedCall& c) { both(c, {3, 2, 16, 8}, DType::i8); });
  expect_rejected("f64 pages of f32 queries", [&](PagedCall& c) { both(c, {3, 2, 16, 8}, DType::f64); });
  expect_rejected("another dtype of out", [](PagedCall& c) { c.out = Tensor::zeros({3, 4, 8}, DType::bf16); });
  expect_rejected("an lse of other tokens", [](PagedCall& c) { c.lse = Tensor::zeros({4, 2}, DType::f32); });
  expect_rejected("a negative window", [](PagedCall& c) { c.params.window = -1; });
}

}  // namespace
}  // namespace lathe::kernels
