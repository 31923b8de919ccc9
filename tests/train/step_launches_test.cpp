// What an optimiser's step queues on a device: on simt, whose host code is a card's.
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace lathe::train
