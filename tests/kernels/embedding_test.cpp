// embedding: rows come out as they lie, gradients are summed in the order the header promises, bad ids are refused.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/kernels/embedding_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(embedding_operations());

TEST(Embedding, RowsAreTheWeightsBits) {
  const Tensor weight = Tensor::empty({6, 19}, DType::f16);
  for (int64_t i = 0; i < weight.numel(); ++i)
    static_cast<uint16_t*>(weight.raw())[i] = static_cast<uint16_t>(i * 509);  // NaN payloads too
  const int32_t id[] = {5, 0, 5, 3};
  const Tensor out = Tensor::empty({4, 19}, DType::f16);
  kernels::embedding_forward(out, weight, Tensor::of<int32_t>(id, {4}));
  for (int64_t t = 0; t < 4; ++t) {
    EXPECT_EQ(std::memcmp(out.select(0, t).raw(), weight.select(0, id[t]).raw(), 19 * 2), 0) << t;
  }
}

TEST(Embedding, BackwardSumsEachSequenceBeforeItAdds) {
  // In f32 1e8 + 3 + 3 is 1e8, but 3 + 3 + 3 = 9 first gives 1e8 + 8: the sum over the sequence comes first.
  const float grads[] = {3, 3, 3};
  const int32_t ids[] = {1, 1, 1}, together[] = {0, 3}, apart[] = {0, 1, 2, 3};
  const auto run = [&](std::span<const int32_t> ends) {
    const Tensor grad_weight = Tensor::zeros({2, 1}, DType::f32);
    grad_weight.data<float>()[1] = 1e8f;
    kernels::embedding_backward(grad_weight, Tensor::of<float>(grads, {3, 1}), Tensor::of<int32_t>(ids, {3}),
                                Tensor::of<int32_t>(ends, {static_cast<int64_t>(ends.size())}));
    return grad_weight.data<float>()[1];
  };
  EXPECT_EQ(run(together), 100000008.0f);
  EXPECT_EQ(run(apart), 100000000.0f);
}

TEST(Embedding, AnIdOutsideTheVocabularyIsNamed) {
  const Tensor weight = Tensor::zeros({10, 4}, DType::f32), out = Tensor::zeros({2, 4}, DType::f32);
  const Tensor whole = Tensor::of<int32_t>(std::vector<int32_t>{0, 2}, {2});
  for (int32_t bad : {-1, 10, 1 << 30}) {
    const Tensor ids = Tensor::of<int32_t>(std::vector<int32_t>{3, bad}, {2});
    try {
      kernels::embedding_forward(out, weight, ids);
      FAIL() << bad;
    } catch (const ShapeError& error) {
      EXPECT_NE(std::string(error.what()).find("ids[1]"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(std::to_string(bad)), std::string::npos) << error.what();
    }
    EXPECT_THROW(kernels::embedding_backward(weight, out, ids, whole), ShapeError);
    EXPECT_THROW(kernels::embedding_forward(out, kernels::pack_weight(weight, DType::f32), ids), ShapeError);
  }
}

TEST(Embedding, OnADeviceGradientsHaveTheBitsOfTheCpu) {
  RandomStream random(8, RandomPurpose::test);
  const Tensor grad_out = Tensor::empty({40, 21}, DType::f32), ids = Tensor::empty({40}, DType::i32);
  for (float& x : grad_out.span<float>()) x = random.normal();
  for (int32_t& id : ids.span<int32_t>()) id = static_cast<int32_t>(random.below(3));
  const Tensor cu_seqlens = Tensor::of<int32_t>(std::vector<int32_t>{0, 7, 22, 40}, {4});
  const Device simt{DeviceKind::simt};
  const Tensor there = Tensor::empty({40, 21}, DType::f32, simt),
               found_there = Tensor::zeros({3, 21}, DType::f32, simt);
  kernels::copy(there, grad_out);
  kernels::embedding_backward(found_there, there, ids, cu_seqlens);
  const Tensor found = Tensor::empty({3, 21}, DType::f32), expected = Tensor::zeros({3, 21}, DType::f32);
  kernels::copy(found, found_there);
  kernels::embedding_backward(expected, grad_out, ids, cu_seqlens);
  EXPECT_EQ(std::memcmp(found.raw(), expected.raw(), static_cast<size_t>(found.nbytes())), 0);
}

// What is launched is the same whatever ids the plan is of: all alike, all different.
TEST(Embedding, APlanOnADeviceGivesTheBitsOfIdsOnTheCpu) {
  constexpr int64_t tokens = 40, columns = 21;
  const Tensor bounds = Tensor::of<int32_t>(std::vector<int32_t>{0, 7, 7, 22, tokens}, {5});
  for (const Device device : {Device{}, Device{DeviceKind::simt}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const int distinct : {1, 3, 100}) {
        RandomStream random(static_cast<uint64_t>(distinct), RandomPurpose::test);
        const Tensor values = Tensor::empty({tokens, columns}, DType::f32), ids = Tensor::empty({tokens}, DType::i32);
        for (float& x : values.span<float>()) x = random.normal();
        for (int32_t& id : ids.span<int32_t>())
          id = 1 + static_cast<int32_t>(random.below(static_cast<uint64_t>(distinct)));
        const Tensor grad_out = kernels::moved(kernels::cast(values, dtype), device);
        const auto summed = [&](const auto& add) {
          const Tensor start = Tensor::empty({101, columns}, DType::f32);
          for (int64_t i = 0; i < start.numel(); ++i) start.data<float>()[i] = static_cast<float>(i);
          const Tensor sums = kernels::moved(start, device);
          add(sums.raw() == start.raw() ? start : sums);
          const Tensor found = kernels::moved(sums, {});
          return std::string(static_cast<const char*>(found.raw()), static_cast<size_t>(found.nbytes()));
        };
        const Tensor plan = kernels::embedding_plan(ids, bounds);
        EXPECT_EQ(plan.numel(), kernels::embedding_plan_length(tokens));
        EXPECT_TRUE(summed([&](const Tensor& sums) {
                      kernels::embedding_backward(sums, grad_out, kernels::moved(plan, device));
                    }) == summed([&](const Tensor& sums) { kernels::embedding_backward(sums, grad_out, ids, bounds); }))
            << to_string(device) << " " << distinct;
      }
    }
  }
}

TEST(Embedding, RefusesAPlanOfOtherTokens) {
  const Tensor grad_weight = Tensor::zeros({10, 4}, DType::f32), grad_out = Tensor::zeros({3, 4}, DType::f32);
  const Tensor plan =
      kernels::embedding_plan(Tensor::zeros({2}, DType::i32), Tensor::of<int32_t>(std::vector<int32_t>{0, 2}, {2}));
  EXPECT_THROW(kernels::embedding_backward(grad_weight, grad_out, plan), ShapeError);
  const Tensor wide = Tensor::zeros({10, 4}, DType::f64), of_two = Tensor::zeros({2, 4}, DType::f64);
  EXPECT_THROW(kernels::embedding_backward(wide, of_two, plan), ShapeError);
}

TEST(Embedding, AnIdOutsideTheVocabularyGivesNaNOnADevice) {
  const Device simt{DeviceKind::simt};
  const Tensor ids = Tensor::empty({3}, DType::i32, simt), out = Tensor::empty({3, 9}, DType::bf16, simt);
  kernels::copy(ids, Tensor::of<int32_t>(std::vector<int32_t>{9, 10, -1}, {3}));
  kernels::embedding_forward(out, Tensor::zeros({10, 9}, DType::bf16, simt), ids);
  const Tensor found = Tensor::empty({3, 9}, DType::bf16);
  kernels::copy(found, out);
  for (int64_t i = 0; i < 27; ++i) EXPECT_EQ(std::isnan(static_cast<float>(found.data<bf16>()[i])), i >= 9) << i;
}

TEST(Embedding, RefusesBoundsThatDoNotCutTheTokens) {
  const Tensor grad_weight = Tensor::zeros({10, 4}, DType::f32), grad_out = Tensor::zeros({3, 4}, DType::f32);
  const Tensor ids = Tensor::zeros({3}, DType::i32);
  for (const std::vector<int32_t>& bad : {std::vector<int32_t>{}, {1, 3}, {0, 2}, {0, 4, 3}, {0, 2, 1, 3}}) {
    const Tensor cu_seqlens = Tensor::of<int32_t>(bad, {static_cast<int64_t>(bad.size())});
    EXPECT_THROW(kernels::embedding_backward(grad_weight, grad_out, ids, cu_seqlens), ShapeError);
  }
  EXPECT_THROW(kernels::embedding_backward(grad_weight, grad_out, ids, Tensor{}), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
