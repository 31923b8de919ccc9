// What a step queues on a device, and where it waits: on simt, whose host code is a card's.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "kernels/cuda/queued_work.h"
#include "kernels/cuda/runtime.h"
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
  optimizer.step(1, 1e-4, optimizer.gradient_norm(1.0), 1.0);
  return counts.by_name;
}

TEST(OptimizerLaunches, AreAsManyForOneTensorAsForAll) {
  Counts expected = {{"fill", 1}, {"sum_of_squares", 1}, {kernels::queued_copy, 1}, {kernels::waited, 1}};
  for (const auto& [optim, kernel] :
       {std::pair{"adamw_torch", "adamw"}, std::pair{"lion_32bit", "lion"}, std::pair{"sgd", "sgd"}}) {
    Counts counts = expected;
    counts[kernel] = 1;
    EXPECT_EQ(optimizer_counts(optim, "bfloat16"), counts) << optim;
    EXPECT_EQ(optimizer_counts(optim, "float32"), counts) << optim;
  }
}

// Of the gradients of all factors, by sequences.
int64_t factor_gradient_launches(double dropout) {
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
  return counts.by_name["product_of_sequences"];
}

// Two layers of seven linears. q, k and v have one input, and so have gate and up: with dropout each has its own.
TEST(TrainingStep, FactorsOfOneInputHaveOneGradient) {
  EXPECT_EQ(factor_gradient_launches(0.1), 2 * 14);
  EXPECT_EQ(factor_gradient_launches(0.0), 2 * 11);
}

struct QueuedNames final : kernels::QueuedWorkListener {
  std::vector<std::string> names;
  void queued(const char* name, int64_t) override { names.emplace_back(name); }
};

// Between them the device would have nothing to do.
TEST(TrainingStep, WaitsForNothingBeforeItsLastBackwardIsQueued) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.dtype = "bfloat16";
  config.per_device_train_batch_size = 2;  // two forwards
  const TrainingSet rows = random_rows(4, 3);
  const nn::ModelFiles files = nn::open_model_files(config.model);
  const std::unique_ptr<nn::Transformer> model = tiny_model(config, files, "", {.device = simt});
  Optimizer optimizer(model->trainable_parameters(), config);
  SftObjective objective(*model, rows, nullptr, config);
  objective.accumulate(std::vector<int64_t>{0, 1, 2, 3}, 0, 1.0);  // the allocator has what it needs
  const QueuedNames queued;
  objective.accumulate(std::vector<int64_t>{0, 1, 2, 3}, 0, 1.0);
  const auto& names = queued.names;
  const auto is_wait = [](const std::string& name) { return name == kernels::waited || name == kernels::queued_copy; };
  const auto first = std::find_if(names.begin(), names.end(), is_wait);
  EXPECT_GT(first - names.begin(), 100);
  EXPECT_TRUE(std::all_of(first, names.end(), is_wait));
  EXPECT_EQ(std::count(names.begin(), names.end(), kernels::waited), 2 * 3) << "loss, entropy and hits of each forward";
}

}  // namespace
}  // namespace lathe::train
