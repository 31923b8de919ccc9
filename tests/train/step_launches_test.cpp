// What a step queues on a device, and where it waits: on simt, whose host code is a card's.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "kernels/cuda/device_runtime.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/cuda/runtime.h"
#include "tests/train/dpo/tiny_dpo.h"
#include "tests/train/grpo/tiny_grpo.h"
#include "tests/train/small_model.h"
#include "tests/train/tiny_run.h"

namespace lathe::train {
namespace {

constexpr Device simt{DeviceKind::simt, 0};

struct QueuedCounts final : kernels::QueuedWorkListener {
  std::map<std::string, int64_t> by_name;
  void queued(const char* name, int64_t) override { ++by_name[name]; }
};

using Counts = std::map<std::string, int64_t>;

// Without what the rows ask for: zeros, the norm and the step.
Counts optimizer_counts(const std::string& optim, const std::string& dtype) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.optim = optim;
  config.dtype = dtype;
  const nn::ModelFiles files = nn::open_model_files(config.model);
  const std::unique_ptr<nn::Transformer> model = tiny_model(config, files, "", {.device = simt});
  Optimizer optimizer(model->trainable_parameters(), config);
  EXPECT_EQ(optimizer.parameters().size(), 28u);
  const QueuedCounts counts;
  optimizer.zero_gradients();
  optimizer.clip(1.0);
  optimizer.step(1, 1e-4);
  return counts.by_name;
}

TEST(OptimizerLaunches, AreAsManyForOneTensorAsForAllAndWaitForNothing) {
  Counts expected = {{"fill", 1}, {"sum_of_squares", 1}, {"clip_factor", 1}, {kernels::queued_pinned_copy, 1}};
  for (const auto& [optim, kernel] :
       {std::pair{"adamw_torch", "adamw"}, std::pair{"lion_32bit", "lion"}, std::pair{"sgd", "sgd"}}) {
    Counts counts = expected;
    counts[kernel] = 1;
    EXPECT_EQ(optimizer_counts(optim, "bfloat16"), counts) << optim;
    EXPECT_EQ(optimizer_counts(optim, "float32"), counts) << optim;
  }
}

// Of a forward and its backward by two layers of seven linears, with LoRA on each.
Counts accumulation_counts(double dropout) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.dtype = "bfloat16";
  config.lora_r = 8;
  config.lora_dropout = dropout;
  const TrainingSet rows = random_rows(2, 3);
  const nn::ModelFiles files = nn::open_model_files(config.model);
  const std::unique_ptr<nn::Transformer> model = tiny_model(config, files, "", {.device = simt});
  Optimizer optimizer(model->trainable_parameters(), config);
  SftObjective objective(*model, rows, nullptr, config);
  QueuedCounts counts;
  objective.accumulate(std::vector<int64_t>{0, 1}, 0, 1.0);
  return counts.by_name;
}

// q, k and v have one input, and so have gate and up.
TEST(TrainingStep, FactorsOfOneInputHaveOneGradient) {
  EXPECT_EQ(accumulation_counts(0.0)["product_of_sequences"], 2 * (4 + 7));
}

// Its masks are made where x is read, and beside the gradient of each linear's input where that is added to.
TEST(TrainingStep, DropoutIsSevenLaunchesOfALayer) {
  Counts dropping = accumulation_counts(0.1), plain = accumulation_counts(0.0);
  EXPECT_EQ(dropping["dropped_shrink"], 2 * 4);
  EXPECT_EQ(dropping["dropped_factor_gradients"], 2 * 4);
  EXPECT_EQ(dropping["dropped_input_gradient"], 2 * 7 - 3) << "nobody asks for the gradient of the first q, k and v's";
  EXPECT_EQ(dropping["product_of_sequences"], plain["product_of_sequences"] - 2 * 4);
  EXPECT_EQ(dropping["dropout"], 0);
  EXPECT_EQ(dropping["add"], plain["add"]);
  int64_t more = 0;
  for (const auto& [name, count] : dropping) more += count;
  for (const auto& [name, count] : plain) more -= count;
  EXPECT_EQ(more, 2 * 7 - 3);
}

struct QueuedNames final : kernels::QueuedWorkListener {
  std::vector<std::string> names;
  void queued(const char* name, int64_t) override { names.emplace_back(name); }

  // Where the host begins to wait. A copy from or to the host is a wait, too.
  auto first_wait() const { return std::find_if(names.begin(), names.end(), is_wait); }
  bool waits_at_its_end_alone() const { return std::all_of(first_wait(), names.end(), is_wait); }
  int64_t waits() const { return std::count(names.begin(), names.end(), kernels::waited); }
  bool queued_before_waiting(const char* name) const {
    return std::find(names.begin(), first_wait(), name) != first_wait();
  }

 private:
  static bool is_wait(const std::string& name) { return name == kernels::waited || name == kernels::queued_copy; }
};

// Of a run whose steps have two forwards each. Between waiting and the optimiser the device would have nothing to do.
// `host_works`: what the gradient is made of goes through the host in the device's queue so often.
template <class Run>
std::vector<std::string> expect_no_wait_in_the_second_step(Run& run, int64_t host_works) {
  run.train(1);  // the allocator has what it needs
  const QueuedNames queued;
  run.train(2);
  EXPECT_GT(queued.first_wait() - queued.names.begin(), 100);
  EXPECT_TRUE(queued.queued_before_waiting("adamw"));
  EXPECT_TRUE(queued.waits_at_its_end_alone());
  EXPECT_EQ(queued.waits(), 2) << "for what was measured, and for the norm";
  EXPECT_EQ(std::count(queued.names.begin(), queued.names.end(), kernels::queued_host_work), host_works);
  return queued.names;
}

TEST(TrainingStep, WaitsForNothingBeforeTheOptimiserIsQueued) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.dtype = "bfloat16";
  config.per_device_train_batch_size = 2;
  config.gradient_accumulation_steps = 2;  // two forwards
  config.max_steps = 3;
  TinyRun run(config, random_rows(8, 3), {}, {.device = simt});
  expect_no_wait_in_the_second_step(run, 0);
}

// What its routers choose stays on the device.
TEST(TrainingStep, OfAMixtureWaitsForNothingBeforeTheOptimiserIsQueued) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.model = golden("tiny_qwen3_moe/all").string();
  config.dtype = "bfloat16";
  config.per_device_train_batch_size = 2;
  config.gradient_accumulation_steps = 2;
  config.max_steps = 3;
  TinyRun run(config, random_rows(8, 3, 96), {}, {.device = simt});
  expect_no_wait_in_the_second_step(run, 0);
}

// The norms of a layer's seven linears are found once, whatever forwards there are.
TEST(TrainingStep, OfDoraWaitsForNothingBeforeTheOptimiserIsQueued) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.model = small_model();
  config.dtype = "bfloat16";
  config.use_dora = true;
  config.lora_dropout = 0.1;
  config.per_device_train_batch_size = 2;
  config.gradient_accumulation_steps = 2;  // two forwards
  config.max_steps = 3;
  TinyRun run(config, random_rows(8, 3, small_vocabulary), {}, {.device = simt});
  const std::vector<std::string> names = expect_no_wait_in_the_second_step(run, 0);
  EXPECT_EQ(std::count(names.begin(), names.end(), "dora_norm"), 7);
  EXPECT_EQ(std::count(names.begin(), names.end(), "row_squares"), 0) << "of weights that do not change";
}

TEST(TrainingStep, OfDpoWaitsForNothingBeforeTheOptimiserIsQueued) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.dtype = "bfloat16";
  config.per_device_train_batch_size = 2;
  config.gradient_accumulation_steps = 2;
  config.eval_steps = 100;
  for (const auto& [loss_type, host_works] : {std::pair{"sigmoid", 2 + 2}, std::pair{"aot", 2 + 2 + 2}}) {
    SCOPED_TRACE(loss_type);  // the reference's and the policy's forwards; those before pairs are compared
    config.loss_type = loss_type;
    config.overwrite_output_dir = true;
    TinyDpo run(config, random_pairs(11, 1), {}, simt);
    expect_no_wait_in_the_second_step(run, host_works);
  }
}

TEST(TrainingStep, OfGrpoWaitsForNothingBeforeTheOptimiserIsQueued) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  config.dtype = "bfloat16";
  config.per_device_train_batch_size = 4;
  config.gradient_accumulation_steps = 2;
  config.num_iterations = 2;  // the second step has no rollouts
  config.eval_steps = 100;
  // And it has the first one's shape, so that it is captured, with a place for its work before each pass.
  for (const auto& [quantile, host_works] : {std::pair{1.0, 2 + 1}, std::pair{0.5, 2 + 2 + 2}}) {
    SCOPED_TRACE(quantile);
    config.top_entropy_quantile = quantile;
    config.overwrite_output_dir = true;
    TinyGrpo run(config, even_share, random_prompts(7, 1), simt);
    expect_no_wait_in_the_second_step(run, host_works);
  }
}

// Of the reference's log-probabilities the host makes nothing before the loss.
TEST(TrainingStep, OfGrpoWaitsForItsReferenceNoSoonerThanForItsLoss) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  config.dtype = "bfloat16";
  config.beta = 0.1;
  config.eval_steps = 100;
  TinyGrpo run(config, even_share, random_prompts(7, 1), simt);
  run.train(1);  // the allocator has what it needs
  const QueuedNames queued;
  run.train(2);
  const auto reference = std::find(queued.names.begin(), queued.names.end(), kernels::queued_host_work);
  const auto optimizer = std::find(reference, queued.names.end(), "adamw");
  ASSERT_NE(optimizer, queued.names.end());
  EXPECT_EQ(std::count(reference, optimizer, kernels::queued_host_work), 1 + 1) << "two passes of one forward";
  EXPECT_EQ(std::count(reference, optimizer, kernels::waited), 0);
  EXPECT_EQ(std::count(reference, optimizer, kernels::queued_copy), 0);
}

}  // namespace
}  // namespace lathe::train
