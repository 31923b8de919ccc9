// Checkpoints: whole or passed over, for the same run alone, exact on resume.
#include "train/checkpoint.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include "tests/train/tiny_run.h"
#include "train/manifest.h"
#include "train/run_lock.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

SftConfig saving_config(const fs::path& folder) {
  SftConfig config = tiny_config(folder);
  config.save_steps = 2;
  config.logging_steps = 4;  // a checkpoint falls between two lines: the sums since the last must survive
  return config;
}

struct Finished {
  std::string metrics, parameters;
};

Finished uninterrupted() {
  const TemporaryFolder folder;
  TinyRun run(saving_config(folder.path()), random_rows(10, 1));
  run.train();
  return {bytes_of(folder.path() / "metrics.jsonl"), run.parameter_bytes()};
}

// A run that stops after `steps`, with a checkpoint at every second one.
void start_run(const fs::path& folder, int64_t steps) {
  TinyRun run(saving_config(folder), random_rows(10, 1));
  run.train(steps);
}

std::string resume_error(SftConfig config, TrainingSet rows) {
  config.resume = true;
  try {
    TinyRun(config, std::move(rows)).train(0);
  } catch (const ConfigError& error) {
    return error.key();
  }
  return "no error";
}

TEST(Checkpoint, AResumedRunEndsInTheSameBits) {
  const Finished whole = uninterrupted();
  for (const int64_t stop : {1, 2, 3, 5}) {
    const TemporaryFolder folder;
    start_run(folder.path(), stop);
    SftConfig config = saving_config(folder.path());
    config.resume = true;
    TinyRun run(config, random_rows(10, 1));
    run.train(0);
    EXPECT_EQ(run.trainer->steps_done(), stop / 2 * 2);
    run.train();
    EXPECT_EQ(bytes_of(folder.path() / "metrics.jsonl"), whole.metrics) << "stopped after " << stop;
    EXPECT_EQ(run.parameter_bytes(), whole.parameters) << "stopped after " << stop;
  }
}

TEST(Checkpoint, ARunMayGoOnWithAnotherCutOfItsBatches) {
  const Finished whole = uninterrupted();
  const TemporaryFolder folder;
  start_run(folder.path(), 2);
  SftConfig config = saving_config(folder.path());
  config.resume = true;
  config.per_device_train_batch_size = 1;
  config.gradient_accumulation_steps = 4;
  config.gradient_checkpointing = true;
  TinyRun run(config, random_rows(10, 1));
  run.train();
  EXPECT_EQ(run.parameter_bytes(), whole.parameters);
}

SftConfig full_fine_tuning(const fs::path& folder, const std::string& dtype, const std::string& optim) {
  SftConfig config = saving_config(folder);
  config.use_peft = false;
  config.dtype = dtype;
  config.optim = optim;
  config.learning_rate = 1e-3;
  return config;
}

// A run with this configuration, stopped after three steps and resumed, ends in these parameters.
void expect_resumes_to(const std::string& parameters, SftConfig config) {
  TinyRun(config, random_rows(10, 1)).train(3);
  config.resume = true;
  TinyRun resumed(config, random_rows(10, 1));
  resumed.train();
  EXPECT_EQ(resumed.parameter_bytes(), parameters);
}

TEST(Checkpoint, FullFineTuningResumesItsMasters) {
  const TemporaryFolder straight, stopped;
  TinyRun whole(full_fine_tuning(straight.path(), "bfloat16", "adamw_torch"), random_rows(10, 1));
  whole.train();
  expect_resumes_to(whole.parameter_bytes(), full_fine_tuning(stopped.path(), "bfloat16", "adamw_torch"));
}

// The tiny model's embedding and projections have 8-bit moments, its norms f32 ones.
TEST(Checkpoint, MomentsIn8BitsResumeInTheSameBits) {
  const TemporaryFolder straight, stopped;
  const std::string dtype = tiny_config(straight.path()).dtype;
  TinyRun whole(full_fine_tuning(straight.path(), dtype, "adamw_8bit"), random_rows(10, 1));
  const auto records = whole.train();
  EXPECT_LT(records.back().loss, records.front().loss);
  int codes = 0, floats = 0;
  for (const auto& [name, tensor] : whole.trainer->optimizer().state()) {
    if (!name.ends_with(".exp_avg")) continue;
    EXPECT_EQ(tensor.dtype(), tensor.numel() < 4096 ? DType::f32 : DType::u8) << name;
    ++(tensor.dtype() == DType::u8 ? codes : floats);
  }
  EXPECT_GT(codes, 10);
  EXPECT_GT(floats, 4);
  expect_resumes_to(whole.parameter_bytes(), full_fine_tuning(stopped.path(), dtype, "adamw_8bit"));
  EXPECT_EQ(resume_error(full_fine_tuning(stopped.path(), dtype, "adamw_torch"), random_rows(10, 1)), "optim");
}

TEST(Checkpoint, EveryOptimizerResumesInTheSameBits) {
  for (const auto& [optim, states] : {std::pair<std::string, size_t>{"lion_32bit", 1}, {"sgd", 0}}) {
    const TemporaryFolder straight, stopped;
    const std::string dtype = tiny_config(straight.path()).dtype;
    TinyRun whole(full_fine_tuning(straight.path(), dtype, optim), random_rows(10, 1));
    whole.train();
    const Optimizer& optimizer = whole.trainer->optimizer();
    EXPECT_EQ(optimizer.state().size(), states * optimizer.parameters().size()) << optim;
    expect_resumes_to(whole.parameter_bytes(), full_fine_tuning(stopped.path(), dtype, optim));
  }
}

// What the adapter began as is in the checkpoint, too, as PEFT takes the two together.
TEST(Checkpoint, AnAdapterThatBeganAsAPartOfTheBaseResumesInTheSameBits) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    const auto config_of = [&](const fs::path& folder) {
      SftConfig config = saving_config(folder);
      config.dtype = dtype;
      config.init_lora_weights = "pissa_niter_2";
      config.rank_pattern = R"({"down_proj": 2})";
      config.weight_decay = 0.01;
      return config;
    };
    const TemporaryFolder straight, stopped, cut;
    TinyRun whole(config_of(straight.path()), random_rows(10, 1));
    const auto records = whole.train();
    EXPECT_LT(records.back().loss, records.front().loss);
    expect_resumes_to(whole.parameter_bytes(), config_of(stopped.path()));
    EXPECT_EQ(bytes_of(stopped.path() / "checkpoint-6/adapter_model.safetensors"),
              bytes_of(straight.path() / "checkpoint-6/adapter_model.safetensors"));
    SftConfig one_by_one = config_of(cut.path());
    one_by_one.per_device_train_batch_size = 1;
    one_by_one.gradient_accumulation_steps = 4;
    one_by_one.gradient_checkpointing = true;
    TinyRun other(one_by_one, random_rows(10, 1));
    other.train();
    EXPECT_EQ(other.parameter_bytes(), whole.parameter_bytes());
  }
}

// The magnitudes and the whole modules beside LoRA, in bf16, where a checkpoint must have the f32 masters of all.
TEST(Checkpoint, DoraAndWholeModulesResumeInTheSameBits) {
  const auto config_of = [](const fs::path& folder) {
    SftConfig config = saving_config(folder);
    config.dtype = "bfloat16";
    config.use_dora = true;
    config.lora_dropout = 0.1;
    config.lora_modules_to_save = "lm_head,embed_tokens";
    config.weight_decay = 0.01;
    return config;
  };
  const TemporaryFolder straight, stopped, cut;
  TinyRun whole(config_of(straight.path()), random_rows(10, 1));
  const std::string before = whole.parameter_bytes();
  const auto records = whole.train();
  EXPECT_LT(records.back().loss, records.front().loss);
  EXPECT_NE(whole.parameter_bytes(), before);
  expect_resumes_to(whole.parameter_bytes(), config_of(stopped.path()));
  SftConfig one_by_one = config_of(cut.path());
  one_by_one.per_device_train_batch_size = 1;
  one_by_one.gradient_accumulation_steps = 4;
  one_by_one.gradient_checkpointing = true;
  TinyRun other(one_by_one, random_rows(10, 1));
  other.train();
  EXPECT_EQ(other.parameter_bytes(), whole.parameter_bytes());
}

TEST(Checkpoint, ABrokenOneIsPassedOverWithItsReason) {
  for (const char* name : {"adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json",
                           "adapter_config.json", "manifest.json"}) {
    const TemporaryFolder folder;
    start_run(folder.path(), 4);
    const fs::path file = folder.path() / "checkpoint-4" / name;
    std::string bytes = bytes_of(file);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x10);
    std::ofstream(file, std::ios::binary) << bytes;
    const FoundCheckpoint found = find_checkpoint(folder.path());
    ASSERT_TRUE(found.path.has_value()) << name;
    EXPECT_EQ(found.path->filename(), "checkpoint-2") << name;
    ASSERT_EQ(found.skipped.size(), 1u) << name;
    EXPECT_NE(found.skipped[0].find("checkpoint-4"), std::string::npos) << found.skipped[0];
  }
}

TEST(Checkpoint, MissingAndShortenedFilesAreFound) {
  const TemporaryFolder folder;
  start_run(folder.path(), 4);
  fs::remove(folder.path() / "checkpoint-4/optimizer.safetensors");
  EXPECT_NE(broken_part(folder.path() / "checkpoint-4")->find("optimizer.safetensors is missing"), std::string::npos);
  fs::resize_file(folder.path() / "checkpoint-2/optimizer.safetensors", 100);
  EXPECT_NE(broken_part(folder.path() / "checkpoint-2")->find("optimizer.safetensors has 100 bytes"),
            std::string::npos);
  EXPECT_FALSE(find_checkpoint(folder.path()).path.has_value());
}

TEST(Checkpoint, AnotherRunsCheckpointIsRefusedByTheKeyThatDiffers) {
  const TemporaryFolder folder;
  start_run(folder.path(), 2);
  SftConfig config = saving_config(folder.path());
  config.learning_rate = 1e-3;
  EXPECT_EQ(resume_error(config, random_rows(10, 1)), "learning_rate");
  config = saving_config(folder.path());
  config.seed = 1;
  EXPECT_EQ(resume_error(config, random_rows(10, 1)), "seed");
  EXPECT_EQ(resume_error(saving_config(folder.path()), random_rows(10, 2)), "dataset");
  config = saving_config(folder.path());
  config.model = golden("tiny_llama/tied").string();
  EXPECT_EQ(resume_error(config, random_rows(10, 1)), "model");
  EXPECT_EQ(resume_error(saving_config(folder.path()), random_rows(10, 1)), "no error");
}

TEST(Checkpoint, TheNewestAreKept) {
  const TemporaryFolder folder;
  SftConfig config = saving_config(folder.path());
  config.save_steps = 1;
  config.save_total_limit = 2;
  TinyRun(config, random_rows(10, 1)).train();
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector<int64_t>{5, 6}));
}

TEST(Checkpoint, AFinishedRunResumesToItself) {
  const TemporaryFolder folder;
  TinyRun first(saving_config(folder.path()), random_rows(10, 1));
  first.train();
  const std::string metrics = bytes_of(folder.path() / "metrics.jsonl");
  first.trainer.reset();  // it holds the folder
  SftConfig config = saving_config(folder.path());
  config.resume = true;
  TinyRun again(config, random_rows(10, 1));
  EXPECT_TRUE(again.train().empty());
  EXPECT_EQ(again.parameter_bytes(), first.parameter_bytes());
  EXPECT_EQ(bytes_of(folder.path() / "metrics.jsonl"), metrics);
}

// A checkpoint with another state, whole by its manifest. `change` gets the state.
template <class Change>
void rewrite_state(const fs::path& checkpoint, Change change) {
  auto state = nlohmann::ordered_json::parse(bytes_of(checkpoint / "trainer_state.json"));
  change(state);
  std::ofstream(checkpoint / "trainer_state.json") << state.dump();
  write_manifest(checkpoint);
}

// The sentence with which a resumed run refuses what `change` made of its newest checkpoint's state.
template <class Change>
std::string refusal_of(Change change) {
  const TemporaryFolder folder;
  start_run(folder.path(), 4);
  rewrite_state(folder.path() / "checkpoint-4", change);
  SftConfig config = saving_config(folder.path());
  config.resume = true;
  try {
    TinyRun(config, random_rows(10, 1)).train(0);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "taken";
}

TEST(Checkpoint, NumbersOutOfRangeAreRefusedByName) {
  using Json = nlohmann::ordered_json;
  EXPECT_EQ(refusal_of([](Json&) {}), "taken");
  for (const Json& step : {Json(-5), Json(7), Json(99999999999), Json(1.5), Json("4"), Json(nullptr)})
    EXPECT_NE(refusal_of([&](Json& state) { state["step"] = step; }).find("step: expected an integer from 0 to "),
              std::string::npos)
        << step;
  for (const char* key : {"step", "num_tokens", "window", "format"})
    EXPECT_NE(refusal_of([&](Json& state) { state.erase(key); }).find(std::string("has no \"") + key),
              std::string::npos)
        << key;
  EXPECT_NE(refusal_of([](Json& state) { state["num_tokens"] = -1; }).find("num_tokens"), std::string::npos);
  EXPECT_NE(refusal_of([](Json& state) { state["window"]["steps"] = 5; }).find("window.steps"), std::string::npos);
  EXPECT_NE(refusal_of([](Json& state) { state["window"]["loss"] = "low"; }).find("window.loss"), std::string::npos);
  EXPECT_NE(refusal_of([](Json& state) { state["window"]["sums"] = 1; }).find("window.sums"), std::string::npos);
  EXPECT_NE(refusal_of([](Json& state) { state["settings"]["seed"] = 1; }).find("seed: expected a string"),
            std::string::npos);
  EXPECT_NE(refusal_of([](Json& state) { state["metrics_log"] = 3; }).find("lines"), std::string::npos);
}

TEST(Checkpoint, AManifestVouchesForNoFileOutsideItsFolder) {
  const TemporaryFolder folder;
  start_run(folder.path(), 2);
  const fs::path checkpoint = folder.path() / "checkpoint-2";
  std::ofstream(folder.path() / "outside") << "text";
  for (const std::string& name : {std::string("../outside"), (folder.path() / "outside").string(), std::string()}) {
    write_manifest(checkpoint);
    auto manifest = nlohmann::ordered_json::parse(bytes_of(checkpoint / "manifest.json"));
    manifest["files"][name] = {{"bytes", 4}, {"xxh64", "0000000000000000"}};
    std::ofstream(checkpoint / "manifest.json") << manifest.dump();
    EXPECT_NE(broken_part(checkpoint).value_or("whole").find("is no file of the folder"), std::string::npos) << name;
  }
}

TEST(Checkpoint, AnotherStepThanTheFoldersIsRefused) {
  const std::string refusal = refusal_of([](nlohmann::ordered_json& state) { state["step"] = 2; });
  EXPECT_NE(refusal.find("step: is 2 in a folder of the name checkpoint-4"), std::string::npos) << refusal;
}

TEST(Checkpoint, AnotherFormatIsRefusedAndNotPassedOver) {
  const std::string refusal = refusal_of([](nlohmann::ordered_json& state) { state["format"] = 2; });
  EXPECT_NE(refusal.find("has the format 2, and this program knows 1"), std::string::npos) << refusal;
  const TemporaryFolder folder;
  start_run(folder.path(), 4);
  const fs::path manifest = folder.path() / "checkpoint-4/manifest.json";
  auto json = nlohmann::ordered_json::parse(bytes_of(manifest));
  json["format"] = "lathe checkpoint 2";
  std::ofstream(manifest) << json.dump();
  EXPECT_THROW(find_checkpoint(folder.path()), FormatError);
  json["format"] = 5;
  std::ofstream(manifest) << json.dump();
  EXPECT_EQ(find_checkpoint(folder.path()).skipped.size(), 1u) << "no manifest at all";
}

TEST(Checkpoint, LostLinesOfTheMetricsAreWarnedOf) {
  for (const int64_t kept : {0, 1, 4}) {
    const TemporaryFolder folder;
    SftConfig config = saving_config(folder.path());
    config.logging_steps = 1;
    TinyRun(config, random_rows(10, 1)).train(4);
    const fs::path path = folder.path() / "metrics.jsonl";
    std::istringstream lines(bytes_of(path));
    std::string left, one;
    for (int64_t i = 0; i < kept && std::getline(lines, one); ++i) left += one + "\n";
    std::ofstream(path) << left;
    config.resume = true;
    TinyRun run(config, random_rows(10, 1));
    run.train(0);
    ASSERT_EQ(run.trainer->warnings().size(), kept == 4 ? 0u : 1u);
    if (kept == 4) continue;
    const std::string& warning = run.trainer->warnings()[0];
    EXPECT_NE(warning.find("has " + std::to_string(kept) + " lines"), std::string::npos) << warning;
    EXPECT_NE(warning.find("counted 4"), std::string::npos) << warning;
  }
}

TEST(Checkpoint, AnOlderOneThatDoesNotCountLinesIsTaken) {
  EXPECT_EQ(refusal_of([](nlohmann::ordered_json& state) { state.erase("metrics_log"); }), "taken");
}

TEST(Checkpoint, OneBetweenTheSettingsStepsResumesInTheSameBits) {
  const Finished whole = uninterrupted();
  const TemporaryFolder folder;
  {
    TinyRun run(saving_config(folder.path()), random_rows(10, 1));
    run.train(3);
    EXPECT_EQ(run.trainer->save(), folder.path() / "checkpoint-3");
  }
  SftConfig config = saving_config(folder.path());
  config.resume = true;
  TinyRun run(config, random_rows(10, 1));
  run.train(0);
  EXPECT_EQ(run.trainer->steps_done(), 3);
  run.train();
  EXPECT_EQ(bytes_of(folder.path() / "metrics.jsonl"), whole.metrics);
  EXPECT_EQ(run.parameter_bytes(), whole.parameters);
}

TEST(RunLock, ASecondRunIsRefusedUntilTheFirstHasEnded) {
  const TemporaryFolder folder;
  TinyRun first(saving_config(folder.path()), random_rows(10, 1));
  first.train(2);
  EXPECT_EQ(resume_error(saving_config(folder.path()), random_rows(10, 1)), "output_dir");
  try {
    const RunLock lock(folder.path());
    FAIL() << "two hold it";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find(folder.path().string()), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("process " + std::to_string(::getpid())), std::string::npos)
        << error.what();
  }
  first.trainer.reset();
  EXPECT_EQ(resume_error(saving_config(folder.path()), random_rows(10, 1)), "no error");
  EXPECT_FALSE(fs::exists(folder.path() / ".run.lock"));
}

TEST(RunLock, WhatAKilledRunLeftIsNoObstacle) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / ".run.lock") << "12345\n";
  const RunLock lock(folder.path());
  EXPECT_EQ(bytes_of(folder.path() / ".run.lock"), std::to_string(::getpid()) + "\n");
}

TEST(MetricsLog, AnUnfinishedLineIsDropped) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "metrics.jsonl";
  std::ofstream(path) << "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":1.5}\n{\"step\":3,\"lo";
  truncate_metrics(path, 9);
  EXPECT_EQ(bytes_of(path), "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":1.5}\n");
  truncate_metrics(path, 1);
  EXPECT_EQ(bytes_of(path), "{\"step\":1,\"loss\":2.5}\n");
  for (const char* line :
       {"no json\n", "{}\n", "{\"step\":-1}\n", "{\"step\":1.5}\n", "{\"step\":1,\"loss\":1e400}\n"}) {
    std::ofstream(path) << line;
    EXPECT_THROW(truncate_metrics(path, 1), FormatError) << line;
  }
}

}  // namespace
}  // namespace lathe::train
