// paged_attention's prefill by wgmma and its decode by clusters, on simt as a card of sm_90, have the bits of the
// kernels for every card.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/paged_attention.h"
#include "tests/kernels/paged_attention_models.h"
#include "tests/support/hopper.h"

namespace lathe::kernels {
namespace {

using namespace paged_tests;
using testing::Hopper;

constexpr Device device{DeviceKind::simt};

// New tokens of a sequence, and how many it has with those.
struct Part {
  int32_t count, context;
};

struct Step {
  Model model;
  int64_t page_size;
  std::vector<Part> parts;
  friend void PrintTo(const Step& step, std::ostream* stream) { *stream << step.model.name; }
};

struct Attended {
  Tensor out, lse;
};
// Of the new tokens. Pages are NaN where no token was appended, and the block table ends with a sequence's.
Attended attend(const Step& step) {
  const Model& model = step.model;
  RandomStream random(11, RandomPurpose::test);
  const auto count = std::ssize(step.parts);
  std::vector<int32_t> all_bounds{0}, bounds{0}, contexts;
  int64_t max_pages = 0;
  for (const Part& part : step.parts) {
    all_bounds.push_back(all_bounds.back() + part.context);
    bounds.push_back(bounds.back() + part.count);
    contexts.push_back(part.context);
    max_pages = std::max(max_pages, (part.context + step.page_size - 1) / step.page_size);
  }
  const int64_t page_count = count * max_pages;
  std::vector<int32_t> table(static_cast<size_t>(page_count));
  std::iota(table.begin(), table.end(), 0);
  for (size_t i = table.size(); i > 1; --i) std::swap(table[i - 1], table[random.below(i)]);
  for (int64_t s = 0; s < count; ++s)
    for (int64_t i = (contexts[static_cast<size_t>(s)] + step.page_size - 1) / step.page_size; i < max_pages; ++i)
      table[static_cast<size_t>(s * max_pages + i)] = INT32_MAX;

  const Tensor empty = Tensor::empty({page_count, model.kv_heads, step.page_size, model.head_dim}, model.page_dtype);
  std::memset(empty.raw(), 0xff, static_cast<size_t>(empty.nbytes()));
  const KvPages pages{moved(empty, device), moved(empty, device), {}, {}};
  const auto batch = [&](const std::vector<int32_t>& of) {
    return PagedBatch(i32(of), i32(contexts), i32(table).view({count, max_pages}),
                      {page_count, step.page_size, device});
  };
  const auto rows = [&](int64_t tokens, int64_t heads) {
    return moved(random_tensor(random, {tokens, heads, model.head_dim}, model.dtype), device);
  };
  kv_append(pages, rows(all_bounds.back(), model.kv_heads), rows(all_bounds.back(), model.kv_heads), batch(all_bounds));
  const Tensor out = Tensor::empty({bounds.back(), model.heads, model.head_dim}, model.dtype, device);
  const Tensor lse = Tensor::empty({model.heads, bounds.back()}, DType::f32, device);
  paged_attention(out, rows(bounds.back(), model.heads), pages, batch(bounds), model.params, lse);
  return {moved(out, {}), moved(lse, {})};
}

class PagedWarpgroups : public ::testing::TestWithParam<std::tuple<Step, simt::FiberOrder>> {};

TEST_P(PagedWarpgroups, HaveTheBitsOfMmaSync) {
  const auto& [step, order] = GetParam();
  const Attended expected = attend(step);
  const Hopper hopper(order);
  const Attended found = attend(step);
  EXPECT_TRUE(same_bits(found.out, expected.out));
  EXPECT_TRUE(same_bits(found.lse, expected.lse));
}

// 300 keys go around eight stages; tiles of 128 rows begin in the middle of chunks. Sequences of one token are decoded
// in the same call; one has no new token.
INSTANTIATE_TEST_SUITE_P(
    Steps, PagedWarpgroups,
    ::testing::Values(
        std::tuple{Step{{"groups", 3, 1, 64, {.scale = 0.125f}, DType::bf16}, 16, {{100, 100}, {1, 77}, {30, 300}}},
                   simt::FiberOrder::ascending},
        std::tuple{Step{{"two_heads", 2, 2, 128, {.scale = 0.09f}, DType::bf16}, 16, {{130, 192}, {0, 20}, {17, 17}}},
                   simt::FiberOrder::descending},
        std::tuple{Step{{"window", 2, 1, 64, {.scale = 0.125f, .window = 40}, DType::f16}, 8, {{60, 290}, {20, 20}}},
                   simt::FiberOrder::shuffled},
        std::tuple{Step{{"softcap", 4, 1, 128, {.scale = 0.09f, .softcap = 3}, DType::f16}, 32, {{33, 70}, {5, 5}}},
                   simt::FiberOrder::ascending},
        std::tuple{Step{{"head_of_96", 2, 1, 96, {.scale = 0.1f}, DType::bf16}, 64, {{20, 150}, {2, 3}, {70, 70}}},
                   simt::FiberOrder::descending},
        std::tuple{Step{{"head_of_256", 2, 1, 256, {.scale = 0.0625f}, DType::f16}, 16, {{40, 140}, {66, 66}}},
                   simt::FiberOrder::shuffled}),
    [](const auto& info) { return std::string(std::get<0>(info.param).model.name); });

// Decoded sequences: a block's eight, four or two warps, clusters of up to eight blocks, ends within and at chunks'
// ends, no new token, and lengths that leave warps and blocks without a chunk.
INSTANTIATE_TEST_SUITE_P(
    Decode, PagedWarpgroups,
    ::testing::Values(
        std::tuple{
            Step{{"one_block", 8, 2, 64, {.scale = 0.125f}, DType::bf16}, 16, {{1, 77}, {0, 5}, {1, 500}, {1, 1}}},
            simt::FiberOrder::ascending},
        std::tuple{Step{{"clusters", 3, 1, 64, {.scale = 0.125f}, DType::f16}, 32, {{1, 1100}, {5, 64}, {2, 65}}},
                   simt::FiberOrder::shuffled},
        std::tuple{Step{{"eight_blocks", 2, 1, 64, {.scale = 0.125f}, DType::bf16}, 64, {{1, 4000}}},
                   simt::FiberOrder::descending},
        std::tuple{Step{{"hidden", 4, 2, 64, {.scale = 0.125f, .window = 150}, DType::bf16}, 16, {{1, 900}, {3, 40}}},
                   simt::FiberOrder::descending},
        std::tuple{Step{{"capped", 4, 1, 96, {.scale = 0.1f, .softcap = 3}, DType::bf16}, 16, {{1, 300}, {4, 260}}},
                   simt::FiberOrder::ascending},
        std::tuple{Step{{"of_128", 16, 1, 128, {.scale = 0.09f}, DType::f16}, 64, {{1, 600}, {1, 63}}},
                   simt::FiberOrder::shuffled},
        std::tuple{Step{{"of_256", 4, 1, 256, {.scale = 0.0625f}, DType::bf16}, 16, {{1, 140}, {3, 290}}},
                   simt::FiberOrder::ascending}),
    [](const auto& info) { return std::string(std::get<0>(info.param).model.name); });

TEST(PagedDecodeClusters, TakeAsManySequencesAsRunAtOnceNoLongerThanTheirWarps) {
  alignas(16) static const char somewhere[32] = {};
  const PageSide side{const_cast<char*>(somewhere), 2048, 1024, 64, nullptr};
  const PagedAttentionCuda call{.dtype = DType::bf16,
                                .page_dtype = DType::bf16,
                                .k = side,
                                .v = side,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_dim = 64,
                                .pages = 5,
                                .page_size = 16,
                                .decoded = 12,
                                .most_decode_rows = 2,
                                .most_decode_chunks = 8};
  const auto taken = [](const PagedAttentionCuda& args) { return paged_decode_takes_clusters<DeviceKind::simt>(args); };
  use_device(device);
  EXPECT_FALSE(taken(call)) << "sm_80 has no clusters";
  const Hopper hopper;
  EXPECT_TRUE(taken(call));
  PagedAttentionCuda other = call;
  other.decoded = 13;
  EXPECT_FALSE(taken(other)) << "more blocks than run at once";
  other = call, other.decoded = 1, other.most_decode_chunks = 64;
  EXPECT_TRUE(taken(other));
  other.most_decode_chunks = 128;
  EXPECT_FALSE(taken(other)) << "more chunks than a cluster has warps";
  other = call, other.dtype = DType::f16;
  EXPECT_FALSE(taken(other)) << "pages of another dtype";
  other = call, other.page_size = 8;
  EXPECT_FALSE(taken(other)) << "pages of eight tokens";
  other = call, other.v.token = 65;
  EXPECT_FALSE(taken(other)) << "values that begin between multiples of 16 bytes";
}

TEST(PagedWarpgroups, TakeDtypesHeadSizesAndPagesThatBulkCopiesCanServe) {
  alignas(16) static const char somewhere[32] = {};
  const auto pages = [](int64_t page, int64_t head, int64_t token, int offset = 0) {
    return PageSide{const_cast<char*>(somewhere) + offset, page, head, token, nullptr};
  };
  PagedAttentionCuda call{.dtype = DType::bf16,
                          .page_dtype = DType::bf16,
                          .k = pages(2048, 1024, 64),
                          .v = pages(2048, 1024, 64),
                          .heads = 2,
                          .kv_heads = 2,
                          .head_dim = 64,
                          .pages = 5,
                          .page_size = 16};
  const auto taken = [](const PagedAttentionCuda& args) {
    return paged_prefill_takes_warpgroups<DeviceKind::simt>(args);
  };
  use_device(device);
  EXPECT_FALSE(taken(call)) << "sm_80 has no wgmma";
  const Hopper hopper;
  EXPECT_TRUE(taken(call));
  PagedAttentionCuda other = call;
  for (const int64_t head_dim : {64, 96, 128, 256}) {
    other.head_dim = head_dim;
    other.k = other.v = pages(32 * head_dim, 16 * head_dim, head_dim);
    EXPECT_TRUE(taken(other)) << head_dim;
  }
  other.head_dim = 80;
  EXPECT_FALSE(taken(other)) << "a head size between them";
  other = call, other.dtype = DType::f16;
  EXPECT_FALSE(taken(other)) << "pages of another dtype";
  other = call, other.dtype = other.page_dtype = DType::f32;
  EXPECT_FALSE(taken(other)) << "f32";
  other = call, other.page_size = 4, other.k = other.v = pages(512, 256, 64);
  EXPECT_FALSE(taken(other)) << "pages of four tokens: half of what the swizzle repeats after";
  other = call, other.v = pages(2048, 1024, 64, 2);
  EXPECT_FALSE(taken(other)) << "values that begin between multiples of 16 bytes";
  other = call, other.k = pages(2048, 64, 128);
  EXPECT_FALSE(taken(other)) << "heads beside each other";
}

}  // namespace
}  // namespace lathe::kernels
