// What a device chooses and puts into groups, where the host does not learn of it: what choose_experts chooses, in the
// order of the experts.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/experts/experts.h"
#include "kernels/simt/options.h"

namespace lathe::kernels {
namespace {

class ExpertGroupsOnDevice : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {GetParam()}; }

  struct Chosen {
    std::vector<int32_t> slots, tokens, experts, bounds;
    std::vector<float> weights;
  };
  // All that is written had other numbers before.
  Chosen choose(const Tensor& logits, int64_t per_token, ExpertWeights kind) const {
    const ExpertGroups groups = ExpertGroups::empty(logits.dim(0), logits.dim(1), per_token, device());
    for (const Tensor* numbers : {&groups.slots, &groups.tokens, &groups.experts, &groups.bounds}) fill(*numbers, 7777);
    const Tensor weights = Tensor::empty({logits.dim(0), per_token}, DType::f32, device());
    fill(weights, std::nan(""));
    choose_and_group_experts(weights, groups, moved(logits, device()), kind);
    return {of<int32_t>(groups.slots), of<int32_t>(groups.tokens), of<int32_t>(groups.experts),
            of<int32_t>(groups.bounds), of<float>(weights)};
  }
  // As choose_experts on the same device has chosen, sorted here.
  Chosen expected(const Tensor& logits, int64_t per_token, ExpertWeights kind) const {
    const int64_t tokens = logits.dim(0), experts = logits.dim(1);
    const Tensor weights = Tensor::empty({tokens, per_token}, DType::f32, device());
    const Tensor chosen_there = Tensor::empty({tokens, per_token}, DType::i32, device());
    choose_experts(weights, chosen_there, moved(logits, device()), kind);
    const std::vector<int32_t> chosen = of<int32_t>(chosen_there);
    Chosen result{
        std::vector<int32_t>(chosen.size()), std::vector<int32_t>(chosen.size(), 7777), {}, {}, of<float>(weights)};
    int32_t slot = 0;
    for (int32_t expert = 0; expert < experts; ++expert) {
      const int32_t first = slot;
      for (int64_t token = 0; token < tokens; ++token) {
        bool goes = false;
        for (int64_t i = token * per_token; i < (token + 1) * per_token; ++i)
          if (chosen[static_cast<size_t>(i)] == expert) result.slots[static_cast<size_t>(i)] = slot, goes = true;
        if (goes) result.tokens[static_cast<size_t>(slot++)] = static_cast<int32_t>(token);
      }
      if (slot == first) continue;
      result.experts.push_back(expert);
      result.bounds.push_back(first);
    }
    const int64_t places = std::min(experts, tokens * per_token);
    result.experts.resize(static_cast<size_t>(places), 0);
    result.bounds.resize(static_cast<size_t>(places) + 1, slot);
    return result;
  }
  void expect_groups(const Tensor& logits, int64_t per_token, ExpertWeights kind) const {
    const Chosen wanted = expected(logits, per_token, kind), found = choose(logits, per_token, kind);
    EXPECT_EQ(found.slots, wanted.slots);
    EXPECT_EQ(found.tokens, wanted.tokens);
    EXPECT_EQ(found.experts, wanted.experts);
    EXPECT_EQ(found.bounds, wanted.bounds);
    ASSERT_EQ(found.weights.size(), wanted.weights.size());
    for (size_t i = 0; i < found.weights.size(); ++i)
      EXPECT_TRUE(found.weights[i] == wanted.weights[i] ||
                  (std::isnan(found.weights[i]) && std::isnan(wanted.weights[i])));
  }
  static Tensor random_logits(int64_t tokens, int64_t experts, DType dtype, uint64_t seed) {
    const Tensor values = Tensor::empty({tokens, experts}, DType::f32);
    RandomStream random(seed, RandomPurpose::test);
    for (float& value : values.span<float>()) value = random.normal();
    return cast(values, dtype);
  }

 private:
  template <class T>
  static std::vector<T> of(const Tensor& there) {
    const Tensor here = moved(there, {});
    return {here.span<T>().begin(), here.span<T>().end()};
  }
};

INSTANTIATE_TEST_SUITE_P(, ExpertGroupsOnDevice, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return to_string(Device{info.param}).substr(0, 4); });

TEST_P(ExpertGroupsOnDevice, are_what_was_chosen_in_the_order_of_the_experts) {
  struct Sizes {
    int64_t experts, per_token;
  };
  for (const auto& [experts, per_token] : {Sizes{4, 2}, {6, 6}, {33, 3}, {128, 8}, {1024, 32}})
    for (const int64_t tokens : {1, 2, 15, 16})
      for (const DType dtype : {DType::bf16, DType::f32}) {
        SCOPED_TRACE(std::to_string(tokens) + " tokens, " + std::to_string(per_token) + " of " +
                     std::to_string(experts));
        const Tensor logits = random_logits(tokens, experts, dtype, static_cast<uint64_t>(experts + tokens));
        expect_groups(logits, per_token, ExpertWeights::normalised);
        expect_groups(logits, per_token, ExpertWeights::probabilities);
      }
}

TEST_P(ExpertGroupsOnDevice, all_tokens_may_go_to_one) {
  const Tensor same = Tensor::zeros({16, 40}, DType::f32);
  for (int64_t token = 0; token < 16; ++token) same.data<float>()[token * 40 + 37] = 1;
  expect_groups(same, 1, ExpertWeights::normalised);
  expect_groups(same, 3, ExpertWeights::normalised);
}

TEST_P(ExpertGroupsOnDevice, a_token_with_nans_has_one_slot_for_each_expert_and_spoils_no_other) {
  const Tensor logits = random_logits(5, 8, DType::f32, 3);
  for (int64_t e = 0; e < 8; ++e)
    if (e != 1) logits.data<float>()[2 * 8 + e] = std::numeric_limits<float>::quiet_NaN();
  expect_groups(logits, 4, ExpertWeights::normalised);  // of the third token: 1, then 1, 2 and 3
}

TEST(ExpertGroups, OfMoreTokensAndOnTheCpuAreRefused) {
  const auto refused = [](int64_t tokens, int64_t per_token, Device device) {
    EXPECT_THROW(choose_and_group_experts(Tensor::empty({tokens, per_token}, DType::f32, device),
                                          ExpertGroups::empty(tokens, 64, per_token, device),
                                          Tensor::zeros({tokens, 64}, DType::f32, device), ExpertWeights::normalised),
                 ShapeError);
  };
  refused(17, 2, {DeviceKind::simt});
  refused(2, 33, {DeviceKind::simt});
  refused(2, 2, {});
}

TEST(ExpertGroups, AreTheSameInEveryOrderOfThreads) {
  const Device simt{DeviceKind::simt};
  const Tensor logits = moved(Tensor::of<float>(std::vector<float>{3, 1, 2, 2, 0, 5, 5, 5, 1, 1}, {2, 5}), simt);
  std::set<std::vector<int32_t>> found;
  for (const auto order : {simt::FiberOrder::ascending, simt::FiberOrder::descending, simt::FiberOrder::shuffled}) {
    simt::set_fiber_order(order);
    const ExpertGroups groups = ExpertGroups::empty(2, 5, 3, simt);
    choose_and_group_experts(Tensor::empty({2, 3}, DType::f32, simt), groups, logits, ExpertWeights::normalised);
    std::vector<int32_t> all;
    for (const Tensor* numbers : {&groups.slots, &groups.tokens, &groups.experts, &groups.bounds}) {
      const Tensor here = moved(*numbers, {});
      all.insert(all.end(), here.span<int32_t>().begin(), here.span<int32_t>().end());
    }
    found.insert(all);
  }
  simt::set_fiber_order(simt::FiberOrder::ascending);
  EXPECT_EQ(found.size(), 1u);
}

}  // namespace
}  // namespace lathe::kernels
