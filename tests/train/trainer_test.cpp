// What must not change a bit of a run, what stops it, and the gradients of whole models.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/json_value.h"
#include "core/thread_pool.h"
#include "nn/weights/safetensors.h"
#include "tests/train/tiny_run.h"
#include "train/run_files.h"

namespace lathe::train {
namespace {

struct Result {
  std::string metrics, parameters;
  bool operator==(const Result&) const = default;
};

template <class Change>
Result result_of(Change change, TrainingSet rows = random_rows(21, 1)) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.per_device_train_batch_size = 8;
  change(config);
  TinyRun run(config, std::move(rows));
  run.train();
  return {bytes_of(folder.path() / "metrics.jsonl"), run.parameter_bytes()};
}

class SameBits : public testing::TestWithParam<const char*> {
 protected:
  Result plain() {
    return result_of([](SftConfig& config) { config.dtype = GetParam(); });
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, SameBits, testing::Values("float32", "bfloat16", "float16"));

TEST_P(SameBits, AccumulatingOneRowEightTimesIsABatchOfEight) {
  EXPECT_EQ(plain(), result_of([](SftConfig& config) {
              config.dtype = GetParam();
              config.per_device_train_batch_size = 1;
              config.gradient_accumulation_steps = 8;
            }));
}

TEST_P(SameBits, CuttingForwardsByTokensChangesNothing) {
  EXPECT_EQ(plain(), result_of([](SftConfig& config) {
              config.dtype = GetParam();
              config.max_tokens_per_forward = 30;
            }));
}

TEST_P(SameBits, GradientCheckpointingChangesNothing) {
  EXPECT_EQ(plain(), result_of([](SftConfig& config) {
              config.dtype = GetParam();
              config.gradient_checkpointing = true;
            }));
}

TEST_P(SameBits, TwoThreadsGiveWhatOneGives) {
  const int before = thread_count();
  set_thread_count(1);
  const Result one = plain();
  set_thread_count(2);
  const Result two = plain();
  set_thread_count(before);
  EXPECT_EQ(one, two);
}

TEST(Trainer, ASeedShapesTheRun) {
  const Result a = result_of([](SftConfig&) {}), again = result_of([](SftConfig&) {});
  const Result other = result_of([](SftConfig& config) { config.seed = 43; });
  EXPECT_EQ(a, again);
  EXPECT_NE(a.parameters, other.parameters);
}

TEST(Trainer, PackedSequencesLearnWhatTheyLearnAlone) {
  // The same sequences in a step: one row with all of them, or a row for each.
  const TrainingSet apart = random_rows(8, 2);
  TrainingSet packed;
  for (int64_t s = 0; s < apart.sequences(); ++s) {
    std::vector<int32_t> ids, labels;
    apart.append_sequence(s, ids, labels);
    s % 4 == 0 ? packed.add_row(ids, labels) : packed.add_to_row(ids, labels);
  }
  const auto settings = [](int64_t rows) {
    return [rows](SftConfig& config) {
      config.per_device_train_batch_size = rows;
      config.shuffle = false;
    };
  };
  EXPECT_EQ(result_of(settings(8), apart), result_of(settings(2), packed));
}

TEST(Trainer, FullFineTuningHasTheGradientsOfPyTorch) {
  const auto folder = golden("tiny_llama/untied");
  const auto expected = nlohmann::json::parse(bytes_of(folder / "expected.json"));
  TrainingSet rows;
  for (size_t i = 0; i < expected["input_ids"].size(); ++i)
    rows.add_row(expected["input_ids"][i].get<std::vector<int32_t>>(),
                 expected["labels"][i].get<std::vector<int32_t>>());
  const TemporaryFolder out;
  SftConfig config = tiny_config(out.path());
  config.use_peft = false;
  TinyRun run(config, std::move(rows));
  Optimizer optimizer(run.model->trainable_parameters(), config);
  const std::vector<int64_t> all = {0, 1, 2};
  const StepOutcome outcome = run.objective->accumulate(all, 0, 1.0).outcome();
  EXPECT_NEAR(outcome.loss, expected["loss"].get<double>(), 1e-5 * expected["loss"].get<double>());
  const auto gradients = nn::SafetensorsFile::open(folder / "expected.safetensors");
  ASSERT_GT(optimizer.parameters().size(), 20u);
  for (const nn::Parameter& parameter : optimizer.parameters()) {
    const auto want = gradients->tensor("grad." + parameter.name).span<float>();
    const Tensor gradient = parameter.leaf.grad();
    const auto have = gradient.span<float>();
    double difference = 0, norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      difference += std::pow(static_cast<double>(have[i]) - want[i], 2);
      norm += std::pow(static_cast<double>(want[i]), 2);
    }
    EXPECT_LE(std::sqrt(difference), 1e-4 * std::sqrt(norm)) << parameter.name;
  }
}

// With its tensors as the base has them, whatever the layers are made of.
TEST(Trainer, FullFineTuningLeavesAModelDirectory) {
  for (const auto& [base, vocabulary] :
       {std::pair("tiny_llama/untied", 320), std::pair("tiny_gpt_oss/dense", 96), std::pair("tiny_lfm2/bias", 96),
        std::pair("tiny_qwen3_5/text", 96), std::pair("tiny_qwen3_5_moe/text", 96),
        std::pair("tiny_qwen3_next/some", 96), std::pair("tiny_lfm2_moe/biased", 96),
        std::pair("tiny_granite4/hybrid", 96), std::pair("tiny_granite4/experts", 96)}) {
    const TemporaryFolder folder;
    SftConfig config = tiny_config(folder.path());
    config.model = golden(base).string();
    config.use_peft = false;
    config.learning_rate = 1e-3;
    TinyRun run(config, random_rows(8, 3, vocabulary));
    const auto records = run.train();
    EXPECT_LT(records.back().loss, records.front().loss);
    write_result(folder.path(), *run.model, run.trainer->optimizer(), config.model);
    const auto written = nn::SafetensorsFile::open(folder.path() / "model.safetensors"),
               given = nn::SafetensorsFile::open(golden(base) / "model.safetensors");
    EXPECT_EQ(written->names().size(), given->names().size());
    for (const std::string& name : given->names())
      EXPECT_EQ(written->tensor(name).shape(), given->tensor(name).shape()) << name;
    const nn::ModelFiles files = nn::open_model_files(folder.path());
    nn::Transformer again(files.config, *files.weights, {.weights = nn::WeightMode::trainable});
    std::string bytes;
    for (const nn::Parameter& parameter : again.trainable_parameters())
      bytes.append(static_cast<const char*>(parameter.master.raw()), static_cast<size_t>(parameter.master.nbytes()));
    EXPECT_EQ(bytes, run.parameter_bytes());
  }
}

// The config says which dtype the weights have, by each of the names under which the model's own says it.
TEST(Trainer, TheConfigOfAFullFineTuneNamesTheDtypeOfTheWeights) {
  for (const auto& [dtype, type] : {std::pair("float32", "F32"), std::pair("bfloat16", "BF16")}) {
    for (const char* key : {"torch_dtype", "dtype"}) {
      const TemporaryFolder base, folder;
      std::filesystem::copy(golden("tiny_llama/untied"), base.path());
      auto json = nlohmann::ordered_json::parse(bytes_of(base.path() / "config.json"));
      json.erase("torch_dtype");
      json.erase("dtype");
      json[key] = "float16";
      json["unknown"] = {{"kept", 1.5}};
      std::ofstream(base.path() / "config.json") << json.dump();
      SftConfig config = tiny_config(folder.path());
      config.model = base.path().string();
      config.use_peft = false;
      config.dtype = dtype;
      config.max_steps = 1;
      TinyRun run(config, random_rows(4, 3));
      run.train();
      write_result(folder.path(), *run.model, run.trainer->optimizer(), config.model);
      json[key] = dtype;
      EXPECT_EQ(nlohmann::ordered_json::parse(bytes_of(folder.path() / "config.json")), json);
      const nn::ModelFiles written = nn::open_model_files(folder.path());
      for (const nn::WeightInfo& weight : written.weights->weights())
        EXPECT_EQ(weight.stored_type, type) << weight.name;
    }
  }
}

TEST(Trainer, AnInfiniteLossStopsTheRunAndNamesTheStepAndTheGoodCheckpoint) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.save_steps = 2;
  TinyRun run(config, random_rows(8, 4));
  run.train(3);
  const std::string good = bytes_of(folder.path() / "checkpoint-2/adapter_model.safetensors");
  nn::Parameter parameter = run.trainer->optimizer().parameters()[0];
  parameter.master.data<float>()[0] = std::nanf("");
  parameter.refresh();
  try {
    run.trainer->step();
    FAIL() << "a loss that is not a number must stop the run";
  } catch (const NumericError& error) {
    EXPECT_NE(std::string(error.what()).find("step 4"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("checkpoint-2"), std::string::npos) << error.what();
  }
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector<int64_t>{2}));
  EXPECT_EQ(bytes_of(folder.path() / "checkpoint-2/adapter_model.safetensors"), good);
}

TEST(Trainer, AnEarlierRunIsNeitherMixedNorLostUnasked) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  TinyRun(config, random_rows(8, 5)).train(2);
  EXPECT_THROW(TinyRun(config, random_rows(8, 5)).train(1), ConfigError);
  config.overwrite_output_dir = true;
  TinyRun(config, random_rows(8, 5)).train(1);
  EXPECT_EQ(read_metrics(folder.path() / "metrics.jsonl").size(), 1u);
}

TEST(Trainer, EvaluationIsTheMeanOverAllLabels) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.lora_dropout = 0;
  TinyRun run(config, random_rows(8, 6));
  SftObjective objective(*run.model, run.rows, &run.rows, config);
  std::vector<int64_t> all(8);
  for (int64_t i = 0; i < 8; ++i) all[static_cast<size_t>(i)] = i;
  const Metrics metrics = objective.evaluate();
  const StepOutcome outcome = objective.accumulate(all, 0, 1.0).outcome();
  EXPECT_EQ(metrics[0].first, "eval_loss");
  EXPECT_EQ(metrics[0].second, outcome.loss) << "the same forward, the same order of the sum";
}

}  // namespace
}  // namespace lathe::train
