// lathe-train grpo itself: what it leaves behind, kill -9 between rollout, reward and update, and its errors.
#include <sched.h>
#include <signal.h>

#include <algorithm>

#include "tests/programs/program_test.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class LatheTrainGrpo : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    // The model knows the first 320 tokens: single characters.
    std::ofstream prompts(folder_ / "prompts.jsonl");
    for (int i = 0; i < 6; ++i)
      prompts << nlohmann::json{{"prompt", std::string(1, char('A' + i))}, {"answer", i}}.dump() << "\n";
  }
  std::vector<std::string> grpo(const std::string& output_dir, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"bin/lathe-train",
                                    "grpo",
                                    "--model",
                                    (folder_ / "model").string(),
                                    "--dataset",
                                    (folder_ / "prompts.jsonl").string(),
                                    "--output_dir",
                                    (folder_ / output_dir).string(),
                                    "--max_steps",
                                    "6",
                                    "--num_iterations",
                                    "2",
                                    "--save_steps",
                                    "1",
                                    "--logging_steps",
                                    "1",
                                    "--lora_r",
                                    "4",
                                    "--learning_rate",
                                    "1e-2",
                                    "--num_generations",
                                    "4",
                                    "--max_completion_length",
                                    "6"};
    if (std::find(more.begin(), more.end(), "--reward_command") == more.end())
      all.insert(all.end(), {"--reward_funcs", "repetition", "--reward_ngram_size", "1"});
    return joined(std::move(all), more);
  }
  void expect_same_result(const std::string& a, const std::string& b) const {
    for (const char* name : {"metrics.jsonl", "adapter_model.safetensors"})
      EXPECT_EQ(bytes_of(folder_ / a / name), bytes_of(folder_ / b / name)) << name;
  }
};

TEST_F(LatheTrainGrpo, LeavesAnAdapterMetricsAndAReportWithCompletions) {
  ASSERT_EQ(run(grpo("run", {"--eval_dataset", (folder_ / "prompts.jsonl").string(), "--log_completions"})), 0)
      << err();
  for (const char* name : {"adapter_model.safetensors", "metrics.jsonl", "config.yaml",
                           "completions/completions_00005.jsonl", "checkpoint-3/objective/generation_batch.json"})
    EXPECT_TRUE(fs::exists(folder_ / "run" / name)) << name;
  const std::string report = bytes_of(folder_ / "run/report.html");
  EXPECT_NE(report.find("The last completions"), std::string::npos);
  EXPECT_NE(report.find("reward -"), std::string::npos);
  EXPECT_NE(err().find("reward -"), std::string::npos) << err();
  const std::string metrics = bytes_of(folder_ / "run/metrics.jsonl");
  for (const char* name :
       {"reward", "reward_std", "frac_reward_zero_std", "rewards/repetition/mean", "completions/clipped_ratio",
        "entropy", "clip_ratio/region_mean", "eval_reward", "sampling/sampling_logp_difference/max"})
    EXPECT_NE(metrics.find("\"" + std::string(name) + "\":"), std::string::npos) << name;
}

// A prompt to a draw, which two steps learn from: a stop in between reads the prompt that is still learnt from again.
TEST_F(LatheTrainGrpo, AStreamHasTheBitsOfTheFileInOrderAndResumes) {
  const std::string rows = (folder_ / "prompts.jsonl").string(), pipe = (folder_ / "pipe").string();
  const auto streamed = [&](const std::string& output, const std::string& dataset,
                            const std::vector<std::string>& more) {
    return joined(grpo(output, {"--dataset", dataset, "--per_device_train_batch_size", "4"}), more);
  };
  ASSERT_EQ(run(streamed("file", rows, {"--shuffle", "false"})), 0) << err();
  ASSERT_EQ(run(streamed("stream", rows, {"--streaming", "--max_prompt_length", "64"})), 0) << err();
  const auto same_learning = [&](const std::string& a, const std::string& b) {
    EXPECT_EQ(bytes_of(folder_ / a / "adapter_model.safetensors"), bytes_of(folder_ / b / "adapter_model.safetensors"));
  };
  same_learning("file", "stream");  // the epoch of a stream is what is drawn of it
  ASSERT_EQ(std::system(("mkfifo " + pipe).c_str()), 0);
  const auto feed = [&](const std::string& what) { return std::system((what + " > " + pipe + " &").c_str()); };
  ASSERT_EQ(feed("head -n 2 " + rows), 0);
  EXPECT_EQ(run(streamed("piped", pipe, {"--streaming", "--max_prompt_length", "64"})), 1);
  EXPECT_NE(err().find("has ended after 2 rows"), std::string::npos) << err();
  ASSERT_EQ(feed("cat " + rows), 0);
  EXPECT_EQ(run(streamed("piped", pipe, {"--streaming", "--max_prompt_length", "64", "--resume"})), 0) << err();
  expect_same_result("stream", "piped");
  for (const char* at : {"checkpoint-1", "checkpoint-3", "checkpoint-4"}) {
    const std::string name = std::string("from-") + at;
    fs::create_directory(folder_ / name);
    fs::copy(folder_ / "stream" / at, folder_ / name / at, fs::copy_options::recursive);
    fs::copy(folder_ / "stream/metrics.jsonl", folder_ / name / "metrics.jsonl");
    ASSERT_EQ(run(streamed(name, rows, {"--streaming", "--max_prompt_length", "64", "--resume"})), 0) << err();
    expect_same_result("stream", name);
  }
  EXPECT_EQ(run(streamed("none", rows, {"--streaming", "--max_steps", "-1"})), 2);
  EXPECT_NE(err().find("streaming: needs max_steps"), std::string::npos) << err();
  std::ofstream(rows) << R"({"prompt": "ABCDEFGH"})"
                      << "\n";
  EXPECT_EQ(run(streamed("long", rows, {"--streaming", "--max_prompt_length", "4"})), 1);
  EXPECT_NE(err().find("above max_prompt_length 4"), std::string::npos) << err();
}

TEST_F(LatheTrainGrpo, ItsResolvedConfigRepeatsTheRun) {
  ASSERT_EQ(run(grpo("run")), 0) << err();
  ASSERT_EQ(run({"bin/lathe-train", "grpo", "--config", (folder_ / "run/config.yaml").string(), "--output_dir",
                 (folder_ / "again").string()}),
            0)
      << err();
  expect_same_result("run", "again");
}

TEST_F(LatheTrainGrpo, ADryRunCountsTheCacheAndWritesNothing) {
  ASSERT_EQ(run(grpo("run", {"--dry_run", "--json"})), 0) << err();
  const auto plan = nlohmann::json::parse(out());
  EXPECT_GT(plan["memory_bytes"]["kv_cache"].get<int64_t>(), 0);
  EXPECT_EQ(plan["total_steps"], 6);
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

// A judge that counts letters; it can be made to end this program's parent, or itself, at its nth answer.
std::string judge(const fs::path& folder, const std::string& at_answer, const std::string& what) {
  return "n=$(cat " + (folder / "count").string() +
         " 2>/dev/null || echo 0); while IFS= read -r line; do n=$((n+1)); echo $n > " + (folder / "count").string() +
         "; if [ $n -eq " + at_answer + " ]; then " + what + "; fi; echo $((${#line} % 7)); done";
}

TEST_F(LatheTrainGrpo, KilledBetweenRolloutRewardAndUpdateItResumesToTheSameBytes) {
  const auto by_judge = [&](const std::string& output_dir, const std::string& at, const std::string& what) {
    fs::remove(folder_ / "count");
    return run(grpo(output_dir, {"--resume", "--reward_command", judge(folder_, at, what)}));
  };
  ASSERT_EQ(by_judge("whole", "0", ":"), 0) << err();
  // Rewards of steps 1, 3 and 5: within, at the end of, and at the start of a batch of 8.
  for (const char* at : {"1", "5", "8", "9", "12", "16", "17", "24"}) {
    const std::string output_dir = std::string("killed") + at;
    EXPECT_EQ(by_judge(output_dir, at, "kill -KILL $PPID"), -SIGKILL) << at;
    ASSERT_EQ(by_judge(output_dir, "0", ":"), 0) << err();
    expect_same_result("whole", output_dir);
  }
}

TEST_F(LatheTrainGrpo, KilledAtACheckpointBetweenUpdatesItResumesToTheSameBytes) {
  ASSERT_EQ(run(grpo("whole")), 0) << err();
  for (const char* checkpoint : {"checkpoint-1", "checkpoint-2", "checkpoint-3", "checkpoint-5"}) {
    const std::string output_dir = std::string("killed-") + checkpoint;
    const pid_t child = start(grpo(output_dir, {"--resume", "--threads", "1"}));
    while (!fs::exists(folder_ / output_dir / checkpoint) && ::waitpid(child, nullptr, WNOHANG) == 0) ::sched_yield();
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ASSERT_EQ(run(grpo(output_dir, {"--resume"})), 0) << err();
    expect_same_result("whole", output_dir);
  }
}

TEST_F(LatheTrainGrpo, AJudgeThatDiesNamesTheRowAndLosesNothing) {
  fs::remove(folder_ / "count");
  ASSERT_EQ(run(grpo("whole", {"--reward_command", judge(folder_, "0", ":")})), 0) << err();
  fs::remove(folder_ / "count");
  EXPECT_EQ(run(grpo("run", {"--save_steps", "0", "--reward_command", judge(folder_, "11", "exit 3")})), 1);
  EXPECT_NE(err().find("prompts.jsonl, line "), std::string::npos) << err();
  EXPECT_NE(err().find("exit code 3 and answered 2 of 8"), std::string::npos) << err();
  EXPECT_NE(err().find("checkpoint-2"), std::string::npos) << err();
  EXPECT_NE(err().find("--resume"), std::string::npos) << err();
  ASSERT_EQ(run(grpo("run", {"--resume", "--reward_command", judge(folder_, "0", ":")})), 0) << err();
  EXPECT_NE(err().find("going on from"), std::string::npos) << err();
  expect_same_result("whole", "run");
}

TEST_F(LatheTrainGrpo, WrongSettingsAndRowsAreNamedBeforeAnythingIsWritten) {
  EXPECT_EQ(run(grpo("run", {"--loss_type", "ppo", "--num_generations", "3", "--reward_weights", "1,1"})), 2);
  for (const char* name : {"loss_type", "generation_batch_size", "reward_weights"})
    EXPECT_NE(err().find(name), std::string::npos) << err();
  EXPECT_EQ(run(grpo("run", {"--reward_funcs", "number", "--reward_column", "solution"})), 2);
  EXPECT_NE(err().find("has a column \"solution\""), std::string::npos) << err();
  EXPECT_EQ(run(grpo("run", {"--reward_funcs", "regex", "--reward_regex", "(("})), 2);
  EXPECT_NE(err().find("reward_regex"), std::string::npos) << err();
  EXPECT_EQ(run(grpo("run", {"--max_completion_length", "100000"})), 2);
  EXPECT_NE(err().find("max_completion_length"), std::string::npos) << err();
  std::ofstream(folder_ / "bad.jsonl") << "{\"prompt\": \"A\"}\n{\"text\": \"A\"}\n";
  EXPECT_EQ(run(grpo("run", {"--dataset", (folder_ / "bad.jsonl").string()})), 1);
  EXPECT_NE(err().find("line 2: has no \"prompt\""), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

}  // namespace
}  // namespace lathe
