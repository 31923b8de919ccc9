// Training in float16: the scale's schedule is torch's; a step that overflows changes nothing but the scale; a stop
// loses nothing; and the gradients are float32's as far as float16 holds them.
#include "train/loss_scale.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/train/dpo/tiny_dpo.h"
#include "tests/train/grpo/tiny_grpo.h"
#include "tests/train/tiny_run.h"

namespace lathe::train {
namespace {

TEST(LossScale, GrowsAndShrinksAsTorchsGradScaler) {
  const auto expected = nlohmann::json::parse(bytes_of(golden("loss_scale/schedule.json")));
  const auto overflowed = expected["overflowed"].get<std::set<int64_t>>();
  LossScale scale;
  size_t change = 0;
  const auto& changes = expected["scale_from_step"];
  for (int64_t step = 0; step < expected["steps"].get<int64_t>(); ++step) {
    if (change + 1 < changes.size() && changes[change + 1][0] == step) ++change;
    ASSERT_EQ(scale.scale, changes[change][1].get<double>()) << step;
    scale.update(overflowed.contains(step));
  }
  EXPECT_EQ(change + 1, changes.size());
  EXPECT_EQ(scale.skipped_steps, expected["skipped"].get<int64_t>());
  EXPECT_EQ(scale.growth_tracker, expected["growth_tracker"].get<int64_t>());
}

TEST(LossScale, EndsWhereTorchsFloatDoes) {
  LossScale scale;
  scale.scale = 0x1p127;
  scale.growth_tracker = LossScale::growth_interval - 1;
  scale.update(false);
  EXPECT_EQ(scale.scale, 0x1p127);
  EXPECT_EQ(scale.growth_tracker, 0);
}

// SFT whose loss is so much larger at some steps that float16 does not hold its gradients.
class OverflowingObjective final : public Objective {
 public:
  OverflowingObjective(nn::Transformer& model, const TrainingSet& rows, const SftConfig& config,
                       std::set<int64_t> overflows)
      : sft_(model, rows, nullptr, config), overflows_(std::move(overflows)) {}
  int64_t rows() const override { return sft_.rows(); }
  uint64_t fingerprint() const override { return sft_.fingerprint(); }
  Metrics evaluate() override { return {}; }
  QueuedStep accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) override {
    return sft_.accumulate(rows, step, overflows_.contains(step) ? loss_scale * 0x1p30 : loss_scale);
  }

 private:
  SftObjective sft_;
  std::set<int64_t> overflows_;
};

SftConfig half_config(const std::filesystem::path& folder) {
  SftConfig config = tiny_config(folder);
  config.dtype = "float16";
  config.save_steps = 1;
  return config;
}

MakeObjective overflowing(const std::set<int64_t>& steps) {
  return [steps](nn::Transformer& model, const TrainingSet& rows, const SftConfig& config) {
    return std::make_unique<OverflowingObjective>(model, rows, config, steps);
  };
}

std::string moments_of(const Optimizer& optimizer) {
  std::string bytes;
  for (const auto& [name, tensor] : optimizer.state()) {
    const Tensor here = kernels::moved(tensor, {});
    bytes.append(static_cast<const char*>(here.raw()), static_cast<size_t>(here.nbytes()));
  }
  return bytes;
}

// On a device nobody knows that the step is to be skipped when it is queued.
class Float16On : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, Float16On, testing::Values(Device{}, Device{DeviceKind::simt}), [](const auto& info) {
  return to_string(info.param).substr(0, to_string(info.param).find(':'));
});

TEST_P(Float16On, AStepThatOverflowsChangesTheScaleAlone) {
  const TemporaryFolder folder;
  TinyRun run(half_config(folder.path()), random_rows(10, 1), overflowing({2}), {.device = GetParam()});
  const std::vector<StepRecord> before = run.train(2);
  const std::string parameters = run.parameter_bytes(), moments = moments_of(run.trainer->optimizer());
  const StepRecord skipped = run.train(3).at(0);
  EXPECT_TRUE(skipped.skipped && !before[1].skipped);
  EXPECT_EQ(skipped.loss_scale, 65536.0);
  EXPECT_EQ(run.parameter_bytes(), parameters);
  EXPECT_EQ(moments_of(run.trainer->optimizer()), moments);
  const StepRecord after = run.train(4).at(0);
  EXPECT_EQ(after.loss_scale, 32768.0);
  EXPECT_FALSE(after.skipped);
  EXPECT_EQ(after.learning_rate, skipped.learning_rate) << "the schedule waits for the optimiser";
  EXPECT_LT(after.learning_rate, before[1].learning_rate);
  EXPECT_NE(run.parameter_bytes(), parameters);
  const std::vector<LoggedLine> lines = read_metrics(folder.path() / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(metric_of(lines[3].metrics, "skipped_steps"), 1);
  EXPECT_EQ(metric_of(lines[3].metrics, "loss_scale"), 32768);
  EXPECT_THROW(metric_of(lines[2].metrics, "grad_norm"), Error) << "none that JSON could hold";
}

TEST(Float16, ARunThatWasStoppedAfterASkippedStepEndsInTheSameBits) {
  const auto set = overflowing({1, 3});
  const TemporaryFolder straight;
  TinyRun whole(half_config(straight.path()), random_rows(10, 1), set);
  whole.train();
  for (const int64_t stop : {1, 2, 4}) {
    const TemporaryFolder folder;
    SftConfig config = half_config(folder.path());
    TinyRun(config, random_rows(10, 1), set).train(stop);
    config.resume = true;
    TinyRun resumed(config, random_rows(10, 1), set);
    resumed.train();
    EXPECT_EQ(resumed.parameter_bytes(), whole.parameter_bytes()) << stop;
    EXPECT_EQ(bytes_of(folder.path() / "metrics.jsonl"), bytes_of(straight.path() / "metrics.jsonl")) << stop;
  }
}

// A loss that is not finite although its gradients are: known when the optimiser is queued already.
class BrokenLoss final : public Objective {
 public:
  BrokenLoss(nn::Transformer& model, const TrainingSet& rows, const SftConfig& config)
      : sft_(model, rows, nullptr, config), device_(model.device()) {}
  int64_t rows() const override { return sft_.rows(); }
  uint64_t fingerprint() const override { return sft_.fingerprint(); }
  Metrics evaluate() override { return {}; }
  QueuedStep accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) override {
    QueuedStep queued = sft_.accumulate(rows, step, loss_scale);
    if (step != 1) return queued;
    const float part = INFINITY;
    queued.losses.push_back(kernels::moved(Tensor::of<float>(std::span(&part, 1), {1}), device_));
    queued.outcome = [outcome = std::move(queued.outcome)] {
      StepOutcome broken = outcome();
      broken.loss = INFINITY;
      return broken;
    };
    return queued;
  }

 private:
  SftObjective sft_;
  Device device_;
};

TEST_P(Float16On, ALossThatIsNotFiniteLeavesTheWeightsAsTheyWere) {
  for (const char* dtype : {"float32", "float16"}) {
    const TemporaryFolder folder;
    SftConfig config = tiny_config(folder.path());
    config.dtype = dtype;
    TinyRun run(config, random_rows(10, 1),
                [](nn::Transformer& model, const TrainingSet& rows, const SftConfig& settings) {
                  return std::make_unique<BrokenLoss>(model, rows, settings);
                },
                {.device = GetParam()});
    run.train(1);
    const std::string parameters = run.parameter_bytes(), moments = moments_of(run.trainer->optimizer());
    EXPECT_THROW(run.train(2), NumericError);
    EXPECT_EQ(run.trainer->steps_done(), 1);
    EXPECT_EQ(run.parameter_bytes(), parameters);
    EXPECT_EQ(moments_of(run.trainer->optimizer()), moments);
  }
}

TEST(Float16, GradientsThatNoScaleHelpsStopTheRun) {
  const TemporaryFolder folder;
  SftConfig config = half_config(folder.path());
  config.max_steps = 40;
  std::set<int64_t> all;
  for (int64_t step = 0; step < 40; ++step) all.insert(step);
  TinyRun run(config, random_rows(10, 1), overflowing(all));
  try {
    run.train();
    ADD_FAILURE() << "trained on gradients that are not finite";
  } catch (const NumericError& error) {
    EXPECT_EQ(run.trainer->steps_done(), 16) << "skipped from 65536 down to 1";
    EXPECT_NE(std::string(error.what()).find("float16 ends at 65504"), std::string::npos) << error.what();
  }
}

// The gradients of the first step, unscaled, parameter after parameter.
template <class Run>
std::vector<double> gradients_of(Run& run, double loss_scale) {
  Optimizer optimizer(run.model->trainable_parameters(), run.config);
  run.objective->accumulate(std::vector<int64_t>{0, 1, 2, 3}, 0, loss_scale).outcome();
  std::vector<double> gradients;
  for (const nn::Parameter& parameter : optimizer.parameters()) {
    const Tensor gradient = kernels::moved(parameter.leaf.grad(), {});
    for (const float value : gradient.span<float>()) gradients.push_back(static_cast<double>(value) / loss_scale);
  }
  return gradients;
}

double relative_distance(const std::vector<double>& found, const std::vector<double>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += (found.at(i) - expected[i]) * (found[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / norm);
}

// Each of the some 30 roundings between a label and a factor is off by 2^-12 on average, in no direction:
// sqrt(30) · 2^-12 = 1.3e-3, and twice that where activations and gradients meet. bfloat16 would be eight times as far.
constexpr double half_tolerance = 3e-3;

TEST(Float16, SftsGradientsAreFloat32s) {
  for (const bool use_peft : {true, false}) {
    const auto gradients = [&](const char* dtype, double scale) {
      const TemporaryFolder folder;
      SftConfig config = tiny_config(folder.path());
      config.dtype = dtype;
      config.use_peft = use_peft;
      config.lora_dropout = 0;
      TinyRun run(config, random_rows(4, 3));
      return gradients_of(run, scale);
    };
    const std::vector<double> expected = gradients("float32", 1.0);
    const double distance = relative_distance(gradients("float16", 65536.0), expected);
    EXPECT_LT(distance, half_tolerance) << use_peft;
    EXPECT_LT(relative_distance(gradients("float32", 65536.0), expected), 1e-6) << "a power of two";
  }
}

TEST(Float16, DposGradientsAreFloat32s) {
  for (const bool use_peft : {true, false}) {
    const auto gradients = [&](const char* dtype, double scale) {
      const TemporaryFolder folder;
      DpoConfig config = tiny_dpo_config(folder.path());
      config.dtype = dtype;
      config.use_peft = use_peft;
      TinyDpo run(config, random_pairs(4, 3));
      return gradients_of(run, scale);
    };
    const double distance = relative_distance(gradients("float16", 65536.0), gradients("float32", 1.0));
    EXPECT_LT(distance, half_tolerance) << use_peft;
  }
}

TEST(Float16, DposGradientsDoNotDependOnTheScale) {
  const auto gradients = [](double scale) {
    const TemporaryFolder folder;
    DpoConfig config = tiny_dpo_config(folder.path());
    config.dtype = "float16";
    TinyDpo run(config, random_pairs(4, 3));
    return gradients_of(run, scale);
  };
  // A power of two more or less changes numbers near float16's ends alone.
  EXPECT_LT(relative_distance(gradients(8192.0), gradients(65536.0)), 1e-4);
}

}  // namespace
}  // namespace lathe::train
