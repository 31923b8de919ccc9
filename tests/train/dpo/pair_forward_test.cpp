// Prompts that have their rows once: what is measured has the bits of sequences by themselves, what is learnt is the
// same gradient.
#include "train/dpo/pair_forward.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/runtime.h"
#include "tests/train/dpo/tiny_dpo.h"
#include "train/dpo/pair_batch.h"

namespace lathe::train {
namespace {

std::vector<int32_t> values(const Tensor& tensor) {
  const auto all = tensor.span<int32_t>();
  return {all.begin(), all.end()};
}

TEST(PairBatch, SharesWhatBothBeginWithAndNeitherLearns) {
  TrainingSet pairs;
  add_pair(pairs, {1, 2, 3}, {4, 5}, {4, 6, 7});
  add_pair(pairs, {8}, {9}, {10});
  const std::vector<int64_t> rows = {0, 1};
  const PairBatch once = make_pair_batch(pairs, rows, 4, PromptRows::once);
  EXPECT_EQ(values(once.batch.tokens.ids), (std::vector<int32_t>{1, 2, 3, 4, 5, 3, 4, 6, 7, 8, 9, 8, 10}));
  EXPECT_EQ(values(once.batch.labels),
            (std::vector<int32_t>{-100, -100, 4, 5, -100, 4, 6, 7, -100, 9, -100, 10, -100}));
  EXPECT_EQ(values(once.batch.tokens.layout.positions), (std::vector<int32_t>{0, 1, 2, 3, 4, 2, 3, 4, 5, 0, 1, 0, 1}));
  EXPECT_EQ(values(once.batch.tokens.layout.cu_seqlens), (std::vector<int32_t>{0, 5, 9, 11, 13}));
  EXPECT_EQ(values(once.batch.tokens.layout.sample_numbers), (std::vector<int32_t>{4, 5, 6, 7}));
  EXPECT_EQ(once.prefixes.lengths, (std::vector<int32_t>{0, 2, 0, 0}));
  EXPECT_EQ(make_pair_batch(pairs, rows, 4, PromptRows::twice).batch.tokens.ids.numel(), 15);
}

TEST(PairBatch, TheLargestForwardCountsWhatIsSharedOnce) {
  TrainingSet pairs;
  add_pair(pairs, {1, 2, 3, 4, 5, 6}, {7}, {8});             // 14 tokens, 9 rows
  add_pair(pairs, {1}, {2, 3, 4, 5, 6}, {7, 8, 9, 10, 11});  // 12 and 12
  add_pair(pairs, {1, 2}, {3, 4}, {5, 6});                   // 8 and 7
  TrainingSettings settings;
  settings.max_tokens_per_forward = 0;
  const auto largest = [&](int64_t rows, PromptRows prompts) {
    settings.per_device_train_batch_size = rows;
    return largest_pair_forward(pairs, settings, prompts);
  };
  EXPECT_EQ(largest(1, PromptRows::once), 12);
  EXPECT_EQ(largest(2, PromptRows::once), 21);
  EXPECT_EQ(largest(8, PromptRows::once), 28);
  EXPECT_EQ(largest(2, PromptRows::twice), 26);
  settings.max_tokens_per_forward = 10;  // a longer pair runs alone
  EXPECT_EQ(largest(8, PromptRows::once), 12);
}

struct Learnt {
  std::vector<PairSums> sums;
  std::vector<float> gradients;
};

// With dropout, even of nothing, each sequence has rows of its own.
Learnt learn(const char* dtype, bool use_peft, Device device, PromptRows prompts, bool checkpoint) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.dtype = dtype;
  config.use_peft = use_peft;
  config.lora_dropout = 0;
  TinyDpo run(config, random_pairs(5, 9), {}, device);
  const Optimizer optimizer(run.model->trainable_parameters(), run.config);
  PairForwardOptions options;
  options.forward.checkpoint_layers = checkpoint;
  options.forward.adapter.training = prompts == PromptRows::twice;
  Learnt learnt;
  const std::vector<int64_t> rows = {4, 0, 3, 2};
  const PairPass pass = pair_pass(*run.model, run.data.training, rows, run.config, options,
                                  [&](size_t, std::span<const PairSums> sums, std::span<PairGradient> gradients) {
                                    learnt.sums.insert(learnt.sums.end(), sums.begin(), sums.end());
                                    for (size_t i = 0; i < sums.size(); ++i)
                                      gradients[i] = {.chosen = -0.1 - 0.02 * static_cast<double>(i), .rejected = 0.07};
                                    return 0.0;
                                  });
  learn_pairs(pass, HostPart<PairWork>::of(pass.work));
  kernels::synchronize(device);
  for (const nn::Parameter& parameter : optimizer.parameters()) {
    const Tensor gradient = kernels::moved(parameter.leaf.grad(), {});
    const auto all = gradient.span<float>();
    learnt.gradients.insert(learnt.gradients.end(), all.begin(), all.end());
  }
  return learnt;
}

bool same(const CompletionSums& a, const CompletionSums& b) {
  return a.logps == b.logps && a.entropy == b.entropy && a.logits == b.logits && a.correct == b.correct &&
         a.tokens == b.tokens;
}

void expect_the_same(const char* dtype, bool use_peft, Device device, double tolerance) {
  SCOPED_TRACE(std::string(dtype) + (use_peft ? " adapter" : " whole") + " on " + to_string(device));
  const Learnt once = learn(dtype, use_peft, device, PromptRows::once, false);
  const Learnt twice = learn(dtype, use_peft, device, PromptRows::twice, false);
  ASSERT_EQ(once.sums.size(), 4u);
  for (size_t i = 0; i < once.sums.size(); ++i) {
    EXPECT_TRUE(same(once.sums[i].chosen, twice.sums[i].chosen)) << i;
    EXPECT_TRUE(same(once.sums[i].rejected, twice.sums[i].rejected)) << i;
    EXPECT_EQ(once.sums[i].tokens, twice.sums[i].tokens) << i;
  }
  ASSERT_EQ(once.gradients.size(), twice.gradients.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < once.gradients.size(); ++i) {
    difference += std::pow(static_cast<double>(once.gradients[i]) - static_cast<double>(twice.gradients[i]), 2);
    norm += std::pow(static_cast<double>(twice.gradients[i]), 2);
  }
  EXPECT_GT(norm, 0);
  EXPECT_LT(std::sqrt(difference / norm), tolerance);
}

// Sums in another order: some tens of roundings of f32's 2^-24 or bf16's 2^-8, half of them a way each.
TEST(PairForward, PromptsThatHaveTheirRowsOnceChangeNoBitOfTheForward) {
  expect_the_same("float32", true, {}, 1e-6);
  expect_the_same("float32", false, {}, 1e-6);
  expect_the_same("bfloat16", true, {}, 3e-2);
  expect_the_same("float32", true, {DeviceKind::simt}, 1e-6);
  expect_the_same("bfloat16", true, {DeviceKind::simt}, 3e-2);
}

TEST(PairForward, LayersThatAreComputedAgainGiveTheSameBits) {
  EXPECT_EQ(learn("float32", true, {}, PromptRows::once, false).gradients,
            learn("float32", true, {}, PromptRows::once, true).gradients);
}

}  // namespace
}  // namespace lathe::train
