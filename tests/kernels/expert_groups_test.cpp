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
    std::vector<int32_t> slots, tokens, experts, bounds, begins, chosen;
    std::vector<float> weights;
  };
  static constexpr int64_t few = few_grouped_tokens;
  // All that is written had other numbers before. `says`: what was chosen, too.
  Chosen choose(const Tensor& logits, int64_t per_token, ExpertWeights kind, int64_t rows, bool says) const {
    ExpertGroups groups = ExpertGroups::empty(logits.dim(0), logits.dim(1), per_token, device(), rows);
    if (says) groups.chosen = Tensor::empty({logits.dim(0), per_token}, DType::i32, device());
    EXPECT_EQ(groups.begins.defined(), rows > few);
    for (const Tensor* numbers :
         {&groups.slots, &groups.tokens, &groups.experts, &groups.bounds, &groups.begins, &groups.chosen})
      if (numbers->defined()) fill(*numbers, 7777);
    const Tensor weights = Tensor::empty({logits.dim(0), per_token}, DType::f32, device());
    fill(weights, std::nan(""));
    choose_and_group_experts(weights, groups, moved(logits, device()), kind);
    return {of<int32_t>(groups.slots),
            of<int32_t>(groups.tokens),
            of<int32_t>(groups.experts),
            of<int32_t>(groups.bounds),
            groups.begins.defined() ? of<int32_t>(groups.begins) : std::vector<int32_t>{},
            says ? of<int32_t>(groups.chosen) : std::vector<int32_t>{},
            of<float>(weights)};
  }
  // As choose_experts on the same device has chosen, sorted here.
  Chosen expected(const Tensor& logits, int64_t per_token, ExpertWeights kind, int64_t rows, size_t places) const {
    const int64_t tokens = logits.dim(0), experts = logits.dim(1);
    const Tensor weights = Tensor::empty({tokens, per_token}, DType::f32, device());
    const Tensor chosen_there = Tensor::empty({tokens, per_token}, DType::i32, device());
    choose_experts(weights, chosen_there, moved(logits, device()), kind);
    const std::vector<int32_t> chosen = of<int32_t>(chosen_there);
    Chosen result{std::vector<int32_t>(chosen.size()),
                  std::vector<int32_t>(chosen.size(), 7777),
                  {},
                  {},
                  {},
                  chosen,
                  of<float>(weights)};
    int32_t slot = 0;
    for (int32_t expert = 0; expert < experts; ++expert) {
      const int32_t first = slot;
      if (rows > few) result.begins.push_back(static_cast<int32_t>(result.experts.size()));
      for (int64_t token = 0; token < tokens; ++token) {
        bool goes = false;
        for (int64_t i = token * per_token; i < (token + 1) * per_token; ++i)
          if (chosen[static_cast<size_t>(i)] == expert) result.slots[static_cast<size_t>(i)] = slot, goes = true;
        if (goes) result.tokens[static_cast<size_t>(slot++)] = static_cast<int32_t>(token);
      }
      for (int32_t group = first; group < slot; group += static_cast<int32_t>(rows)) {
        result.experts.push_back(expert);
        result.bounds.push_back(group);
      }
    }
    EXPECT_LE(result.experts.size(), places) << "no room for all groups";
    if (rows > few) result.begins.push_back(static_cast<int32_t>(result.experts.size()));
    result.experts.resize(places, 0);
    result.bounds.resize(places + 1, slot);
    return result;
  }
  void expect_groups(const Tensor& logits, int64_t per_token, ExpertWeights kind, int64_t rows = few) const {
    for (const bool says : {false, true}) expect_groups(logits, per_token, kind, rows, says);
  }
  void expect_groups(const Tensor& logits, int64_t per_token, ExpertWeights kind, int64_t rows, bool says) const {
    const Chosen found = choose(logits, per_token, kind, rows, says);
    const Chosen wanted = expected(logits, per_token, kind, rows, found.experts.size());
    if (says) {
      EXPECT_EQ(found.chosen, wanted.chosen);
    }
    EXPECT_EQ(found.slots, wanted.slots);
    EXPECT_EQ(found.tokens, wanted.tokens);
    EXPECT_EQ(found.experts, wanted.experts);
    EXPECT_EQ(found.bounds, wanted.bounds);
    EXPECT_EQ(found.begins, wanted.begins);
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
        expect_groups(logits, per_token, ExpertWeights::normalised_sigmoids);
      }
}

TEST_P(ExpertGroupsOnDevice, all_tokens_may_go_to_one) {
  const Tensor same = Tensor::zeros({16, 40}, DType::f32);
  for (int64_t token = 0; token < 16; ++token) same.data<float>()[token * 40 + 37] = 1;
  expect_groups(same, 1, ExpertWeights::normalised);
  expect_groups(same, 3, ExpertWeights::normalised);
}

// In one chunk of choices and in several, the last a part of one; of more experts than there are choices.
TEST_P(ExpertGroupsOnDevice, of_many_tokens_are_cut_into_rows) {
  struct Sizes {
    int64_t experts, per_token, tokens, rows;
  };
  for (const auto& [experts, per_token, tokens, rows] : {Sizes{4, 2, 17, 16},
                                                         {4, 2, 17, 64},
                                                         {128, 8, 140, 64},
                                                         {33, 3, 350, 16},
                                                         {100, 40, 27, 128},
                                                         {256, 1, 20, 16},
                                                         {1, 1, 1030, 64}}) {
    SCOPED_TRACE(std::to_string(tokens) + " tokens, " + std::to_string(per_token) + " of " + std::to_string(experts) +
                 ", by " + std::to_string(rows));
    const Tensor logits = random_logits(tokens, experts, DType::bf16, static_cast<uint64_t>(experts + tokens));
    expect_groups(logits, per_token, rows == 64 ? ExpertWeights::probabilities : ExpertWeights::normalised, rows);
  }
  // A few tokens in groups of many rows, and more in groups of fewer.
  expect_groups(random_logits(9, 5, DType::f32, 1), 3, ExpertWeights::normalised, 64);
  expect_groups(random_logits(9, 5, DType::f32, 2), 3, ExpertWeights::normalised, 3);
}

TEST_P(ExpertGroupsOnDevice, of_many_tokens_may_all_be_one_experts) {
  const Tensor same = Tensor::zeros({350, 9}, DType::f32);
  for (int64_t token = 0; token < 350; ++token) same.data<float>()[token * 9 + 5] = 1;
  expect_groups(same, 1, ExpertWeights::normalised, 16);
  expect_groups(same, 3, ExpertWeights::normalised, 64);
}

TEST_P(ExpertGroupsOnDevice, a_token_with_nans_has_one_slot_for_each_expert_and_spoils_no_other) {
  const Tensor logits = random_logits(5, 8, DType::f32, 3);
  for (int64_t e = 0; e < 8; ++e)
    if (e != 1) logits.data<float>()[2 * 8 + e] = std::numeric_limits<float>::quiet_NaN();
  expect_groups(logits, 4, ExpertWeights::normalised);  // of the third token: 1, then 1, 2 and 3
  expect_groups(logits, 4, ExpertWeights::normalised, 64);
}

TEST(ExpertGroups, OfAnotherSizeAndOnTheCpuAreRefused) {
  const auto refused = [](int64_t tokens, Device device, int64_t rows, int64_t other_tokens) {
    EXPECT_THROW(choose_and_group_experts(Tensor::empty({tokens, 2}, DType::f32, device),
                                          ExpertGroups::empty(other_tokens, 64, 2, device, rows),
                                          Tensor::zeros({tokens, 64}, DType::f32, device), ExpertWeights::normalised),
                 ShapeError);
  };
  refused(2, {}, 16, 2);
  refused(40, {DeviceKind::simt}, 64, 39);
  refused(16, {DeviceKind::simt}, 16, 17);
}

TEST(ExpertGroups, AreTheSameInEveryOrderOfThreads) {
  const Device simt{DeviceKind::simt};
  const Tensor logits = moved(Tensor::of<float>(std::vector<float>{3, 1, 2, 2, 0, 5, 5, 5, 1, 1}, {2, 5}), simt);
  const auto numbers_in_every_order = [&](const Tensor& of, int64_t rows) {
    std::set<std::vector<int32_t>> found;
    for (const auto order : {simt::FiberOrder::ascending, simt::FiberOrder::descending, simt::FiberOrder::shuffled}) {
      simt::set_fiber_order(order);
      const ExpertGroups groups = ExpertGroups::empty(of.dim(0), 5, 3, simt, rows);
      choose_and_group_experts(Tensor::empty({of.dim(0), 3}, DType::f32, simt), groups, of, ExpertWeights::normalised);
      std::vector<int32_t> all;
      for (const Tensor* numbers : {&groups.slots, &groups.tokens, &groups.experts, &groups.bounds, &groups.begins}) {
        if (!numbers->defined()) continue;
        const Tensor here = moved(*numbers, {});
        all.insert(all.end(), here.span<int32_t>().begin(), here.span<int32_t>().end());
      }
      found.insert(all);
    }
    simt::set_fiber_order(simt::FiberOrder::ascending);
    return found.size();
  };
  EXPECT_EQ(numbers_in_every_order(logits, 16), 1u);
  const Tensor more = Tensor::empty({350, 5}, DType::f32);  // two chunks
  RandomStream random(4, RandomPurpose::test);
  for (float& value : more.span<float>()) value = random.normal();
  EXPECT_EQ(numbers_in_every_order(moved(more, simt), 64), 1u);
}

}  // namespace
}  // namespace lathe::kernels
