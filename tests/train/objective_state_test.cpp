// An objective with state and several updates on the same rows: stopped anywhere, a run ends in the same bytes; a
// checkpoint whose state is missing, torn or another objective's is refused.
#include <gtest/gtest.h>

#include <map>

#include "tests/train/held_rows_objective.h"
#include "train/manifest.h"
#include "train/run_files.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

constexpr int64_t updates = 3, steps = 11;  // an epoch has 9: three draws of 10 rows by 4

SftConfig held_config(const fs::path& folder) {
  SftConfig config = tiny_config(folder);
  config.max_steps = steps;
  config.save_steps = 1;
  config.logging_steps = 4;  // lines, draws and checkpoints fall apart
  return config;
}

TinyRun held_run(const SftConfig& config) { return {config, random_rows(10, 1), held_rows(updates)}; }

// Every file of the folder but those that tell the time.
std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != "timings.jsonl")
      files[entry.path().lexically_relative(folder).string()] = bytes_of(entry.path());
  return files;
}

void finish(TinyRun& run) {
  run.train();
  write_result(run.config.output_dir, *run.model, run.trainer->optimizer(), run.config.model);
}

TEST(ObjectiveState, StoppedAfterAnyStepARunEndsInTheSameBytes) {
  const TemporaryFolder straight;
  TinyRun uninterrupted = held_run(held_config(straight.path()));
  finish(uninterrupted);
  const auto whole = files_of(straight.path());
  ASSERT_TRUE(whole.contains("checkpoint-7/objective/rows.json"));
  ASSERT_TRUE(whole.contains("adapter_model.safetensors"));
  for (int64_t stop = 1; stop < steps; ++stop) {
    const TemporaryFolder folder;
    SftConfig config = held_config(folder.path());
    held_run(config).train(stop);
    config.resume = true;
    TinyRun resumed = held_run(config);
    resumed.train(0);
    ASSERT_EQ(resumed.trainer->steps_done(), stop);
    finish(resumed);
    EXPECT_EQ(files_of(folder.path()), whole) << "stopped after step " << stop;
  }
}

TEST(ObjectiveState, UpdatesOnTheSameRowsAreSteps) {
  SftConfig config = tiny_config("");
  config.max_steps = -1;
  config.num_train_epochs = 2;
  const RowOrder once(10, config), three_times(10, config, updates);
  EXPECT_EQ(three_times.steps_per_epoch(), updates * once.steps_per_epoch());
  EXPECT_EQ(three_times.total_steps(), updates * once.total_steps());
  EXPECT_EQ(three_times.epoch_after(9), 1.0);
  for (int64_t step = 0; step < three_times.total_steps(); ++step)
    EXPECT_EQ(three_times.rows_of_step(step), once.rows_of_step(step / updates)) << step;
}

TEST(ObjectiveState, AMetricOfSomeStepsIsAveragedOverThose) {
  LogWindow window;
  window.add({1.0, 1, {{"every", 1.0}, {"first", 5.0}}});
  window.add({2.0, 1, {{"late", 7.0}, {"every", 3.0}}});
  ASSERT_EQ(window.metrics.size(), 3u);
  EXPECT_EQ(window.loss, 3.0);
  EXPECT_EQ(window.metrics[0].sum / static_cast<double>(window.metrics[0].steps), 2.0);
  EXPECT_EQ(window.metrics[1].sum / static_cast<double>(window.metrics[1].steps), 5.0);
  EXPECT_EQ(window.metrics[2].name, "late");
  EXPECT_EQ(window.metrics[2].sum / static_cast<double>(window.metrics[2].steps), 7.0);
}

TEST(ObjectiveState, ALineCountsTheStepsThatHaveAMetricAcrossAStop) {
  const TemporaryFolder folder;
  SftConfig config = held_config(folder.path());
  held_run(config).train(3);
  config.resume = true;
  held_run(config).train();
  // New rows come at steps 1, 4, 7 and 10: four of them, four, two, and four again. Half of them are hard.
  std::vector<double> hard_rows;
  for (const LoggedLine& line : read_metrics(folder.path() / "metrics.jsonl")) {
    EXPECT_EQ(line.metrics.back().first, "hard_rows") << line.step;
    hard_rows.push_back(line.metrics.back().second);
  }
  EXPECT_EQ(hard_rows, (std::vector<double>{2, 1, 2}));
}

std::string refusal(const SftConfig& config, const MakeObjective& make_objective) {
  try {
    TinyRun(config, random_rows(10, 1), make_objective).train(0);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ObjectiveState, AnotherObjectivesCheckpointIsRefused) {
  const TemporaryFolder held, sft;
  SftConfig config = held_config(held.path());
  held_run(config).train(2);
  config.resume = true;
  EXPECT_EQ(refusal(config, held_rows(updates)), "no error");
  EXPECT_NE(refusal(config, held_rows(updates, "other"))
                .find("holds the state of the objective held_rows, this run's "
                      "objective is other; resume with the same method"),
            std::string::npos);
  EXPECT_NE(refusal(config, {}).find("holds the state of the objective held_rows, this run's objective keeps none"),
            std::string::npos);
  config = held_config(sft.path());
  TinyRun(config, random_rows(10, 1)).train(2);
  config.resume = true;
  EXPECT_NE(refusal(config, held_rows(updates))
                .find("holds no objective's state, this run's objective is held_rows; resume with the same method"),
            std::string::npos);
}

TEST(ObjectiveState, AMissingOrTornStateMakesTheCheckpointNoWholeOne) {
  const TemporaryFolder folder;
  SftConfig config = held_config(folder.path());
  held_run(config).train(3);
  fs::resize_file(folder.path() / "checkpoint-3/objective/rows.json", 10);
  fs::remove_all(folder.path() / "checkpoint-2/objective");
  const FoundCheckpoint found = find_checkpoint(folder.path());
  ASSERT_TRUE(found.path.has_value());
  EXPECT_EQ(found.path->filename(), "checkpoint-1");
  ASSERT_EQ(found.skipped.size(), 2u);
  EXPECT_NE(found.skipped[0].find("objective/rows.json has 10 bytes"), std::string::npos) << found.skipped[0];
  EXPECT_NE(found.skipped[1].find("objective/average.json is missing"), std::string::npos) << found.skipped[1];
  config.resume_from_checkpoint = folder.path() / "checkpoint-2";
  EXPECT_NE(refusal(config, held_rows(updates)).find("is no whole checkpoint: objective/average.json is missing"),
            std::string::npos);
  // Whole by its manifest, but without the state that its trainer_state.json speaks of.
  write_manifest(folder.path() / "checkpoint-2");
  EXPECT_NE(refusal(config, held_rows(updates)).find("objective: is missing, the folder with the state of held_rows"),
            std::string::npos);
}

TEST(ObjectiveState, WithoutStateACheckpointHasTheFilesAndKeysItAlwaysHad) {
  const TemporaryFolder folder;
  TinyRun(held_config(folder.path()), random_rows(10, 1)).train(1);
  std::vector<std::string> names;
  for (const auto& [name, bytes] : files_of(folder.path() / "checkpoint-1")) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors", "manifest.json",
                                             "optimizer.safetensors", "trainer_state.json"}));
  const auto state = nlohmann::ordered_json::parse(bytes_of(folder.path() / "checkpoint-1/trainer_state.json"));
  std::vector<std::string> keys;
  for (const auto& [key, value] : state.items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"format", "step", "num_tokens", "window", "metrics_log",
                                            "model_fingerprint", "data_fingerprint", "settings"}));
  EXPECT_EQ(state["window"].size(), 3u) << "steps, loss and sums";
}

}  // namespace
}  // namespace lathe::train
