// A DPO run: TRL's losses, metrics and gradients of an adapter; what must not change a bit; what the reference is; what
// a stop leaves; and that it learns.
#include "train/dpo/dpo_objective.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/thread_pool.h"
#include "nn/weights/safetensors.h"
#include "tests/train/dpo/tiny_dpo.h"
#include "train/run_files.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string listed(const json& values) {
  std::string list;
  for (const json& value : values)
    list += (list.empty() ? "" : ",") + (value.is_string() ? value.get<std::string>() : value.dump());
  return list;
}

DpoConfig config_of(const json& options, const fs::path& output_dir) {
  DpoConfig config = tiny_dpo_config(output_dir);
  config.loss_type = listed(options.at("loss_type"));
  config.loss_weights = options.contains("loss_weights") ? listed(options["loss_weights"]) : "";
  config.beta = options.at("beta");
  config.label_smoothing = options.value("label_smoothing", 0.0);
  config.f_divergence_type = options.value("f_divergence_type", "reverse_kl");
  if (options.contains("ld_alpha")) config.ld_alpha = options["ld_alpha"].get<double>();
  config.use_weighting = options.value("use_weighting", false);
  return config;
}

// Relative to the largest gradient of the adapter: a log-probability's float32 noise goes into all of them alike.
void expect_gradients(const TinyDpo& run, const nn::SafetensorsFile& expected, const std::string& name) {
  double largest = 0;
  for (const nn::Parameter& parameter : run.model->trainable_parameters())
    for (const float value : expected.tensor(name + "/" + parameter.name).span<float>())
      largest = std::max(largest, std::abs(static_cast<double>(value)));
  for (const nn::Parameter& parameter : run.model->trainable_parameters()) {
    const Tensor wanted = expected.tensor(name + "/" + parameter.name), found = parameter.leaf.grad();
    ASSERT_EQ(found.numel(), wanted.numel()) << parameter.name;
    for (int64_t i = 0; i < wanted.numel(); ++i)
      EXPECT_NEAR(found.data<float>()[i], wanted.data<float>()[i], 1e-5 * largest) << parameter.name << "[" << i << "]";
  }
}

TrainingSet pairs_of(const json& rows) {
  TrainingSet pairs;
  for (const json& row : rows) add_pair(pairs, row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]);
  return pairs;
}

class DpoGolden : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Trl, DpoGolden, testing::Values("dpo/tiny", "dpo/options"));

TEST_P(DpoGolden, LossesMetricsAndGradientsAreTrls) {
  const fs::path files = golden(GetParam());
  const json cases = json::parse(bytes_of(files / "cases.json"));
  const auto gradients = nn::SafetensorsFile::open(files / "gradients.safetensors");
  const TrainingSet pairs = pairs_of(cases.at(0).at("rows"));
  for (size_t i = 1; i < cases.size(); ++i) {
    const json& given = cases[i];
    const std::string name = given.at("name");
    SCOPED_TRACE(given.at("options").dump());
    const TemporaryFolder folder;
    TinyDpo run(config_of(given.at("options"), folder.path()), pairs, golden("dpo/tiny/adapter").string());
    const StepOutcome outcome = run.objective->accumulate(std::vector<int64_t>{0, 1, 2}, 0, 1.0).outcome();
    const double loss = given.at("loss");
    EXPECT_NEAR(outcome.loss, loss, 1e-5 * std::max(1.0, std::abs(loss)));
    for (const auto& [metric, value] : given.at("metrics").items()) {
      const double expected = value, found = metric == "num_tokens" ? static_cast<double>(outcome.tokens)
                                                                    : metric_of(outcome.metrics, metric);
      EXPECT_NEAR(found, expected, 1e-5 * std::max(1.0, std::abs(expected))) << metric;
    }
    expect_gradients(run, *gradients, name);
  }
  EXPECT_GE(cases.size(), 8u);
}

DpoConfig synced_config(const fs::path& output_dir) {
  DpoConfig config = tiny_dpo_config(output_dir);
  config.use_peft = false;
  config.sync_ref_model = true;
  config.ref_model_mixup_alpha = 0.4;
  config.ref_model_sync_steps = 2;
  config.learning_rate = 1e-3;
  return config;
}

// Of the whole model, whose reference follows it.
TEST(DpoSynced, StepsAreTrls) {
  const json given = json::parse(bytes_of(golden("dpo/synced.json")));
  const TemporaryFolder folder;
  DpoConfig config = synced_config(folder.path());
  config.beta = given["options"]["beta"].get<double>();
  config.lr_scheduler_type = "constant";
  config.per_device_train_batch_size = 3;
  config.shuffle = false;
  config.max_steps = static_cast<int64_t>(given["steps"].size());
  TinyDpo run(config, pairs_of(given["rows"]));
  const std::vector<StepRecord> records = run.train();
  ASSERT_EQ(records.size(), 7u);
  // AdamW's first steps are the gradients' signs, so that rounding in float32 grows.
  for (size_t i = 0; i < records.size(); ++i) {
    const json& step = given["steps"][i];
    EXPECT_NEAR(records[i].loss, step["loss"].get<double>(), 1e-3 * step["loss"].get<double>()) << i;
    EXPECT_NEAR(records[i].grad_norm, step["grad_norm"].get<double>(), 1e-3 * step["grad_norm"].get<double>()) << i;
    EXPECT_NEAR(metric_of(records[i].metrics, "rewards/margins"), step["margin"].get<double>(), 1e-3) << i;
  }
}

TEST(DpoSynced, AResumedRunIsOneThatNeverStopped) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    const TemporaryFolder whole_folder, folder;
    DpoConfig config = synced_config(whole_folder.path());
    config.dtype = dtype;
    config.eval_steps = 1;
    TinyDpo whole(config);
    whole.train();
    config.output_dir = folder.path().string();
    config.save_steps = 3;
    config.per_device_train_batch_size = 1;
    config.gradient_accumulation_steps = 8;
    TinyDpo(config).train(3);
    config.resume = true;
    TinyDpo resumed(config);
    resumed.train();
    EXPECT_EQ(whole.parameter_bytes(), resumed.parameter_bytes());
    EXPECT_EQ(bytes_of(whole_folder.path() / "metrics.jsonl"), bytes_of(folder.path() / "metrics.jsonl"));
    EXPECT_FALSE(fs::exists(folder.path() / "ref_logps.safetensors"));
  }
}

struct Result {
  std::string metrics, parameters;
  bool operator==(const Result&) const = default;
};

Result result_of(const std::function<void(DpoConfig&)>& change) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  change(config);
  TinyDpo run(config);
  run.train();
  return {bytes_of(folder.path() / "metrics.jsonl"), run.parameter_bytes()};
}

struct Variant {
  const char *dtype, *loss_type;
  bool use_peft;
};
class DpoSameBits : public testing::TestWithParam<Variant> {
 protected:
  Result with(const std::function<void(DpoConfig&)>& change) {
    return result_of([&](DpoConfig& config) {
      config.dtype = GetParam().dtype;
      config.loss_type = GetParam().loss_type;
      config.use_peft = GetParam().use_peft;
      change(config);
    });
  }
  Result plain() {
    return with([](DpoConfig&) {});
  }
};
INSTANTIATE_TEST_SUITE_P(Dpo, DpoSameBits,
                         testing::Values(Variant{"float32", "sigmoid,bco_pair,sft", true},
                                         Variant{"bfloat16", "sigmoid", true}, Variant{"float16", "sigmoid", true},
                                         Variant{"float16", "sigmoid", false}, Variant{"float32", "aot,ipo", true},
                                         Variant{"float32", "sigmoid", false}));

TEST_P(DpoSameBits, AccumulatingOneRowEightTimesIsABatchOfEight) {
  EXPECT_EQ(plain(), with([](DpoConfig& config) {
              config.per_device_train_batch_size = 1;
              config.gradient_accumulation_steps = 8;
            }));
}

TEST_P(DpoSameBits, WeightsOfRowsAndOfTailsDoNotDependOnTheCut) {
  const bool weighs = std::string(GetParam().loss_type) == "sigmoid";  // not beside aot and sft
  const auto change = [&](int64_t batch) {
    return with([=](DpoConfig& config) {
      config.ld_alpha = 0.3;
      config.use_weighting = weighs;
      config.per_device_train_batch_size = batch;
      config.gradient_accumulation_steps = 8 / batch;
    });
  };
  const Result whole = change(8);
  EXPECT_EQ(whole, change(2));
  EXPECT_NE(whole, plain());
}

TEST_P(DpoSameBits, CuttingForwardsByTokensChangesNothing) {
  EXPECT_EQ(plain(), with([](DpoConfig& config) { config.max_tokens_per_forward = 60; }));
}

TEST_P(DpoSameBits, GradientCheckpointingChangesNothing) {
  EXPECT_EQ(plain(), with([](DpoConfig& config) { config.gradient_checkpointing = true; }));
}

TEST_P(DpoSameBits, ComputingTheReferenceBeforehandChangesNothing) {
  EXPECT_EQ(plain(), with([](DpoConfig& config) { config.precompute_ref_log_probs = true; }));
}

TEST_P(DpoSameBits, TwoThreadsGiveWhatOneGives) {
  const int before = thread_count();
  set_thread_count(1);
  const Result one = plain();
  set_thread_count(2);
  const Result two = plain();
  set_thread_count(before);
  EXPECT_EQ(one, two);
}

TEST_P(DpoSameBits, AResumedRunIsOneThatNeverStopped) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.dtype = GetParam().dtype;
  config.loss_type = GetParam().loss_type;
  config.use_peft = GetParam().use_peft;
  config.save_steps = 2;
  TinyDpo(config).train(2);
  config.resume = true;
  TinyDpo resumed(config);
  resumed.train();
  EXPECT_EQ(plain(), (Result{bytes_of(folder.path() / "metrics.jsonl"), resumed.parameter_bytes()}));
}

TEST(Dpo, DropoutStaysOffUnlessItIsAskedFor) {
  const Result off = result_of([](DpoConfig& config) { config.lora_dropout = 0.5; });
  EXPECT_EQ(off.parameters, result_of([](DpoConfig& config) { config.lora_dropout = 0; }).parameters);
  EXPECT_NE(off.parameters, result_of([](DpoConfig& config) {
                              config.lora_dropout = 0.5;
                              config.disable_dropout = false;
                            }).parameters);
}

// Before anything is learnt the policy is its own reference, to the bit.
void expect_no_reward_at_first(DpoConfig config) {
  TinyDpo run(std::move(config));
  const StepRecord first = run.train(1).at(0);
  EXPECT_EQ(first.loss, std::log1p(1.0));
  for (const char* metric : {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"})
    EXPECT_EQ(metric_of(first.metrics, metric), 0.0) << metric;
  EXPECT_NE(metric_of(run.train(2).at(0).metrics, "rewards/margins"), 0.0);
}

TEST(Dpo, TheReferenceOfANewAdapterIsTheModelWithoutIt) {
  const TemporaryFolder folder;
  expect_no_reward_at_first(tiny_dpo_config(folder.path()));
}

TEST(Dpo, TheReferenceOfAnAdapterTrainedFurtherIsACopyOfIt) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.adapter = golden("dpo/tiny/adapter").string();
  expect_no_reward_at_first(config);
}

TEST(Dpo, TheReferenceOfAnAdapterWithAnOutputProjectionIsItsFirstState) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.adapter = golden("peft_adapter/modules_to_save").string();
  expect_no_reward_at_first(config);
  EXPECT_TRUE(fs::exists(folder.path() / "ref_logps.safetensors"));
}

TEST(Dpo, TheReferenceOfAWholeModelIsTheModelBeforeTraining) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.use_peft = false;
  expect_no_reward_at_first(config);
}

TEST(Dpo, AnAdapterTrainedFurtherIsResumedAgainstItsFirstState) {
  const TemporaryFolder whole_folder, folder;
  DpoConfig config = tiny_dpo_config(whole_folder.path());
  config.adapter = golden("dpo/tiny/adapter").string();
  TinyDpo whole(config);
  whole.train();
  config.output_dir = folder.path().string();
  config.save_steps = 2;
  TinyDpo(config).train(2);
  config.resume = true;
  TinyDpo resumed(config);
  resumed.train();
  EXPECT_EQ(whole.parameter_bytes(), resumed.parameter_bytes());
  EXPECT_EQ(bytes_of(whole_folder.path() / "metrics.jsonl"), bytes_of(folder.path() / "metrics.jsonl"));
}

TEST(Dpo, AKeptReferenceIsReadAgainAndMadeAgainWhereItDoesNotFit) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.precompute_ref_log_probs = true;
  config.save_steps = 2;
  TinyDpo(config).train(2);
  const fs::path file = folder.path() / "ref_logps.safetensors";
  const std::string kept = bytes_of(file);
  const auto written = fs::last_write_time(file);
  config.resume = true;
  TinyDpo(config).train(3);
  EXPECT_EQ(fs::last_write_time(file), written);

  // A byte of a value, a byte of the header, a file cut short: made again, with the same bytes.
  const std::vector<std::string> broken = {kept.substr(0, kept.size() - 1) + '\1', "x" + kept.substr(1),
                                           kept.substr(0, 9)};
  config.resume = false;
  config.overwrite_output_dir = true;
  for (const std::string& bytes : broken) {
    std::ofstream(file, std::ios::binary) << bytes;
    TinyDpo(config).train(1);
    EXPECT_TRUE(bytes_of(file) == kept);
  }
  // Other rows.
  TinyDpo(config, random_pairs(11, 7)).train(1);
  EXPECT_NE(bytes_of(file), kept);
}

TEST(Dpo, NothingIsWrittenIntoAFolderThatHoldsARun) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.use_peft = false;
  std::ofstream(folder.path() / "metrics.jsonl") << "{}\n";
  TinyDpo run(config);
  EXPECT_THROW(run.train(), ConfigError);
  EXPECT_FALSE(fs::exists(folder.path() / "ref_logps.safetensors"));
}

TEST(Dpo, MarginsGrowOnTheRowsThatAreLearnt) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  config.max_steps = 30;
  TinyDpo run(config);
  const std::vector<StepRecord> records = run.train();
  EXPECT_GT(metric_of(records.back().metrics, "rewards/margins"), 0.5);
  EXPECT_GT(metric_of(records.back().metrics, "rewards/accuracies"), 0.9);
  EXPECT_LT(records.back().loss, 0.5);
  EXPECT_TRUE(std::isfinite(metric_of(records.back().evaluation, "eval_rewards/margins")));
}

TEST(Dpo, OnADeviceRunsAsOnTheCpu) {
  const TemporaryFolder on_cpu, on_device;
  DpoConfig config = tiny_dpo_config(on_cpu.path());
  config.max_steps = 2;
  const std::vector<StepRecord> expected = TinyDpo(config).train();
  config.output_dir = on_device.path().string();
  const std::vector<StepRecord> found = TinyDpo(config, random_pairs(11, 1), {}, Device{DeviceKind::simt, 0}).train();
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i].loss, expected[i].loss, 1e-5);
    for (const auto& [name, value] : expected[i].metrics)
      EXPECT_NEAR(metric_of(found[i].metrics, name), value, 1e-5 * std::max(1.0, std::abs(value))) << name;
  }
}

}  // namespace
}  // namespace lathe::train
