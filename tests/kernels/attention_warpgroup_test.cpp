// attention_forward and attention_backward by wgmma, on simt as a card of sm_90, have the bits of mma.sync's kernels.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/cuda/arguments.h"
#include "kernels/cuda/runtime.h"
#include "tests/support/hopper.h"
#include "tests/support/operation_cases.h"

namespace lathe::kernels {
namespace {

using testing::Hopper;

constexpr Device device{DeviceKind::simt};

struct Shape {
  int64_t heads, kv_heads, head_dim;
  DType dtype;
  std::vector<int32_t> cu_seqlens;
  AttentionParams params = {};
};

struct Result {
  std::vector<std::byte> out, lse, gradients;
};

std::vector<std::byte> bytes_of(const Tensor& tensor) {
  std::vector<std::byte> result(static_cast<size_t>(tensor.nbytes()));
  copy_bytes({}, result.data(), device, tensor.raw(), tensor.nbytes());
  return result;
}

Tensor random_tensor(const lathe::Shape& shape, DType dtype, RandomStream& random) {
  const Tensor here = Tensor::empty(shape, dtype), there = Tensor::empty(shape, dtype, device);
  for (int64_t i = 0; i < here.numel(); ++i)
    testing::store_element(static_cast<std::byte*>(here.raw()) + 2 * i, dtype,
                           static_cast<double>(random.below(4001)) / 1000 - 2);
  copy_bytes(device, there.raw(), {}, here.raw(), here.nbytes());
  return there;
}

// [begin, end) of rows of a tensor on the device become infinities.
void plant_infinities(const Tensor& tensor, int64_t begin, int64_t end) {
  const Tensor rows = tensor.slice(0, begin, end), here = Tensor::empty(rows.shape(), rows.dtype());
  for (int64_t i = 0; i < here.numel(); ++i)
    testing::store_element(static_cast<std::byte*>(here.raw()) + 2 * i, rows.dtype(),
                           std::numeric_limits<double>::infinity());
  copy_bytes(device, rows.raw(), {}, here.raw(), here.nbytes());
}

// Forward and backward. Queries, keys and values lie side by side in one tensor, as a fused projection leaves them, and
// so do their gradients. All numbers of sequence `infinite`, if any, are infinities.
Result attend(const Shape& shape, int infinite = -1) {
  const int64_t tokens = shape.cu_seqlens.back(), keys = shape.heads, values = shape.heads + shape.kv_heads;
  RandomStream random(7, RandomPurpose::test);
  const Tensor all = random_tensor({tokens, values + shape.kv_heads, shape.head_dim}, shape.dtype, random);
  const Tensor grad_out = random_tensor({tokens, shape.heads, shape.head_dim}, shape.dtype, random);
  if (infinite >= 0) {
    const auto s = static_cast<size_t>(infinite);
    for (const Tensor& inputs : {all, grad_out}) plant_infinities(inputs, shape.cu_seqlens[s], shape.cu_seqlens[s + 1]);
  }
  const Tensor out = Tensor::zeros({tokens, shape.heads, shape.head_dim}, shape.dtype, device);
  const Tensor lse = Tensor::zeros({shape.heads, tokens}, DType::f32, device);
  const Tensor gradients = Tensor::zeros(all.shape(), shape.dtype, device);
  const Tensor cu_seqlens = Tensor::of<int32_t>(shape.cu_seqlens, {std::ssize(shape.cu_seqlens)});
  const auto queries_of = [&](const Tensor& of) { return of.slice(1, 0, keys); };
  const auto keys_of = [&](const Tensor& of) { return of.slice(1, keys, values); };
  const auto values_of = [&](const Tensor& of) { return of.slice(1, values, values + shape.kv_heads); };
  attention_forward({.out = out,
                     .lse = lse,
                     .q = queries_of(all),
                     .k = keys_of(all),
                     .v = values_of(all),
                     .cu_seqlens = cu_seqlens,
                     .params = shape.params});
  attention_backward({.grad_q = queries_of(gradients),
                      .grad_k = keys_of(gradients),
                      .grad_v = values_of(gradients),
                      .grad_out = grad_out,
                      .q = queries_of(all),
                      .k = keys_of(all),
                      .v = values_of(all),
                      .out = out,
                      .lse = lse,
                      .cu_seqlens = cu_seqlens,
                      .params = shape.params});
  return {bytes_of(out), bytes_of(lse), bytes_of(gradients)};
}

void expect_same_bits(const Shape& shape, simt::FiberOrder order) {
  const Result expected = attend(shape);
  const Hopper hopper(order);
  const Result found = attend(shape);
  EXPECT_EQ(found.out, expected.out);
  EXPECT_EQ(found.lse, expected.lse);
  EXPECT_EQ(found.gradients, expected.gradients);
}

// 220 keys take four chunks, whose keys and values fill the forward's eight stages; 300 go around. In the backward's
// passes they are two blocks, in which the steps of three heads go around six stages.
TEST(AttentionWarpgroups, HaveTheBitsOfMmaSyncForSeveralSequencesAndGroupsOfHeads) {
  expect_same_bits({3, 1, 64, DType::bf16, {0, 5, 75, 75, 295}, {.scale = 0.125f}}, simt::FiberOrder::ascending);
}
TEST(AttentionWarpgroups, HaveTheBitsOfMmaSyncForALongSequence) {
  expect_same_bits({2, 2, 128, DType::bf16, {0, 300}, {.scale = 0.09f}}, simt::FiberOrder::descending);
}
TEST(AttentionWarpgroups, HaveTheBitsOfMmaSyncUnderAWindow) {  // chunks and steps that one warpgroup leaves out
  expect_same_bits({2, 1, 64, DType::bf16, {0, 20, 330}, {.scale = 0.125f, .window = 40}}, simt::FiberOrder::shuffled);
}
TEST(AttentionWarpgroups, HaveTheBitsOfMmaSyncUnderASoftCap) {
  expect_same_bits({2, 1, 64, DType::f16, {0, 130}, {.scale = 0.125f, .softcap = 3.0f}}, simt::FiberOrder::ascending);
}
TEST(AttentionWarpgroups, HaveTheBitsOfMmaSyncUnderAWindowAndASoftCap) {
  expect_same_bits({2, 1, 128, DType::f16, {0, 20, 230}, {.scale = 0.09f, .window = 40, .softcap = 3.0f}},
                   simt::FiberOrder::shuffled);
}

// Half of a head's last panel is the next head's.
TEST(AttentionWarpgroups, HaveTheBitsOfMmaSyncForAHeadOf96) {
  expect_same_bits({3, 1, 96, DType::bf16, {0, 30, 170}, {.scale = 0.1f}}, simt::FiberOrder::descending);
  expect_same_bits({1, 1, 96, DType::f16, {0, 140}, {.scale = 0.1f, .window = 40, .softcap = 3.0f}},
                   simt::FiberOrder::shuffled);
}
// A thread can sum neither a chunk's output of 256 columns at once nor two gradients: in the backward two warpgroups
// share 64 rows, of which the first of two sequences has one step.
TEST(AttentionWarpgroups, HaveTheBitsOfMmaSyncForAHeadOf256) {
  expect_same_bits({2, 1, 256, DType::f16, {0, 20, 150}, {.scale = 0.0625f, .softcap = 3.0f}},
                   simt::FiberOrder::shuffled);
  expect_same_bits({2, 1, 256, DType::bf16, {0, 200}, {.scale = 0.0625f}}, simt::FiberOrder::ascending);
  expect_same_bits({1, 1, 256, DType::bf16, {0, 10, 210}, {.scale = 0.0625f, .window = 40}},
                   simt::FiberOrder::descending);
}

// What a result has of the tokens of a sequence: their outputs and gradients, then each head's lse.
std::vector<std::byte> of_sequence(const Result& result, const Shape& shape, size_t sequence) {
  const auto begin = static_cast<size_t>(shape.cu_seqlens[sequence]);
  const auto end = static_cast<size_t>(shape.cu_seqlens[sequence + 1]);
  const auto tokens = static_cast<size_t>(shape.cu_seqlens.back()), heads = static_cast<size_t>(shape.heads);
  std::vector<std::byte> found;
  const auto take = [&](const std::vector<std::byte>& all, size_t first, size_t row_bytes) {
    const auto at = [&](size_t row) { return all.begin() + static_cast<std::ptrdiff_t>((first + row) * row_bytes); };
    found.insert(found.end(), at(begin), at(end));
  };
  take(result.out, 0, result.out.size() / tokens);
  take(result.gradients, 0, result.gradients.size() / tokens);
  for (size_t head = 0; head < heads; ++head) take(result.lse, head * tokens, sizeof(float));
  return found;
}

// Its neighbours' tokens lie in the same boxes; zeros times infinities would reach them.
TEST(AttentionWarpgroups, KeepASequenceOfInfinitiesFromItsNeighbours) {
  for (const Shape& shape : {Shape{3, 1, 64, DType::bf16, {0, 75, 105, 120}, {.scale = 0.125f}},
                             Shape{2, 1, 96, DType::f16, {0, 75, 105, 120}, {.scale = 0.1f}},
                             Shape{2, 2, 128, DType::bf16, {0, 140, 170, 180}, {.scale = 0.09f, .window = 20}},
                             Shape{1, 1, 128, DType::bf16, {0, 140, 170, 180}, {.scale = 0.09f, .softcap = 3.0f}},
                             Shape{1, 1, 256, DType::bf16, {0, 75, 105, 120}, {.scale = 0.0625f}}}) {
    const Hopper hopper;
    const Result expected = attend(shape), found = attend(shape, 1);
    for (const size_t neighbour : {0, 2})
      EXPECT_EQ(of_sequence(found, shape, neighbour), of_sequence(expected, shape, neighbour))
          << "D = " << shape.head_dim << ", sequence " << neighbour;
  }
}

TEST(AttentionWarpgroups, TakeHeadSizesAndStridesThatBulkCopiesCanServe) {
  alignas(16) static const char somewhere[32] = {};
  const int32_t cu_seqlens[] = {0, 3};
  const auto rows = [](int64_t token, int64_t head, int offset = 0) {
    return HeadRows{const_cast<char*>(somewhere) + offset, token, head};
  };
  AttentionForwardCuda call{.dtype = DType::bf16,
                            .q = rows(128, 64),
                            .k = rows(128, 64),
                            .v = rows(128, 64),
                            .out = rows(128, 64),
                            .cu_seqlens = cu_seqlens,
                            .sequences = 1,
                            .heads = 2,
                            .kv_heads = 2,
                            .head_dim = 64};
  const auto taken = [](const AttentionForwardCuda& args) {
    return attention_takes_warpgroups<DeviceKind::simt>(args);
  };
  use_device(device);
  EXPECT_FALSE(taken(call)) << "sm_80 has no wgmma";
  const Hopper hopper;
  AttentionForwardCuda other = call;
  for (const int64_t head_dim : {64, 96, 128, 256}) {
    other.head_dim = head_dim;
    other.k = other.v = rows(2 * head_dim, head_dim);
    EXPECT_TRUE(taken(other)) << head_dim;
  }
  other.head_dim = 80;
  EXPECT_FALSE(taken(other)) << "a head size between them";
  other = call, other.dtype = DType::f32;
  EXPECT_FALSE(taken(other)) << "f32";
  other = call, other.k = rows(132, 66);
  EXPECT_FALSE(taken(other)) << "heads that are not 16 bytes apart";
  other = call, other.v = rows(128, 64, 2);
  EXPECT_FALSE(taken(other)) << "values that begin between multiples of 16 bytes";
  other = call, other.k = rows(64, 192);
  EXPECT_FALSE(taken(other)) << "heads farther apart than tokens";
}

TEST(AttentionWarpgroups, TakeWhatTheBackwardReadsInEitherPass) {
  alignas(16) static const char somewhere[32] = {};
  const int32_t cu_seqlens[] = {0, 3};
  const auto rows = [](int64_t token, int64_t head) { return HeadRows{const_cast<char*>(somewhere), token, head}; };
  const HeadRows served = rows(128, 64), unserved = rows(132, 66);
  const AttentionBackwardCuda call{.dtype = DType::f16,
                                   .grad_q = unserved,
                                   .grad_k = unserved,
                                   .grad_v = unserved,
                                   .grad_out = served,
                                   .q = served,
                                   .k = served,
                                   .v = served,
                                   .out = unserved,
                                   .cu_seqlens = cu_seqlens,
                                   .sequences = 1,
                                   .tokens = 3,
                                   .heads = 2,
                                   .kv_heads = 2,
                                   .head_dim = 64};
  const auto taken = [](const AttentionBackwardCuda& args) {
    return attention_takes_warpgroups<DeviceKind::simt>(args);
  };
  use_device(device);
  EXPECT_FALSE(taken(call)) << "sm_80 has no wgmma";
  const Hopper hopper;
  EXPECT_TRUE(taken(call));
  for (HeadRows AttentionBackwardCuda::*input : {&AttentionBackwardCuda::q, &AttentionBackwardCuda::grad_out,
                                                 &AttentionBackwardCuda::k, &AttentionBackwardCuda::v}) {
    AttentionBackwardCuda other = call;
    other.*input = unserved;
    EXPECT_FALSE(taken(other)) << "heads that are not 16 bytes apart";
  }
  AttentionBackwardCuda other = call;
  for (const int64_t head_dim : {64, 96, 128, 256}) {
    other.head_dim = head_dim;
    other.q = other.grad_out = other.k = other.v = rows(2 * head_dim, head_dim);
    EXPECT_TRUE(taken(other)) << head_dim;
  }
  other.head_dim = 80;
  EXPECT_FALSE(taken(other)) << "a head size between them";
}

}  // namespace
}  // namespace lathe::kernels
