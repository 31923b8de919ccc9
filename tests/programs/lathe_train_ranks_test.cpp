// Several processes that share the steps of a run: the bits of one process that does the work of all, whatever happens
// to them.
#include <sched.h>
#include <signal.h>

#include "tests/programs/program_test.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class LatheTrainRanks : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    if (!fs::exists("bin/lathe-train-mpi") || !fs::exists("/usr/bin/mpirun")) GTEST_SKIP() << "needs Open MPI";
    std::ofstream more(folder_ / "more.jsonl");
    for (int i = 0; i < 10; ++i) more << json{{"input_ids", {i, i + 1, i + 2, 7}}}.dump() << "\n";
    std::ofstream(folder_ / "model/tokenizer_config.json") << R"({"eos_token": "<|im_end|>"})";
    std::ofstream prompts(folder_ / "prompts.jsonl");
    for (int i = 0; i < 7; ++i)
      prompts << json{{"prompt", std::string(1, char('A' + i))}, {"answer", i}}.dump() << "\n";
    std::ofstream pairs(folder_ / "pairs.jsonl");
    for (int i = 0; i < 10; ++i)
      pairs << json{{"prompt", std::to_string(i)},
                    {"chosen", std::to_string(37 * i + 1)},
                    {"rejected", std::to_string(1000 - 7 * i)}}
                   .dump()
            << "\n";
  }
  static std::vector<std::string> on(int processes, const std::vector<std::string>& command) {
    std::vector<std::string> all = {
        "/usr/bin/mpirun",        "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np",
        std::to_string(processes)};
    all.insert(all.end(), command.begin(), command.end());
    return all;
  }
  std::vector<std::string> sft(const std::string& output, const std::vector<std::string>& more = {}) const {
    return joined(arguments(output, {"--lora_dropout", "0.1", "--per_device_train_batch_size", "2", "--threads", "1"}),
                  more);
  }
  // Ten pairs: with two rows for each of two ranks the last step has one for each, with three ranks one rank has none.
  std::vector<std::string> dpo(const std::string& output, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all =
        sft(output, {"--dataset", (folder_ / "pairs.jsonl").string(), "--learning_rate", "1e-3", "--max_steps", "4",
                     "--max_length", "32", "--logging_steps", "1"});
    all[1] = "dpo";
    return joined(std::move(all), more);
  }
  // Seven prompts, four completions of each; a step learns from four completions of each rank.
  std::vector<std::string> grpo(const std::string& output, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all =
        sft(output, {"--dataset", (folder_ / "prompts.jsonl").string(), "--learning_rate", "1e-2", "--num_generations",
                     "4", "--max_completion_length", "6", "--per_device_train_batch_size", "4", "--save_steps", "1"});
    all[1] = "grpo";
    if (std::find(more.begin(), more.end(), "--reward_command") == more.end())
      all.insert(all.end(), {"--reward_funcs", "repetition", "--reward_ngram_size", "1"});
    return joined(std::move(all), more);
  }
  void expect_same_files(const std::string& a, const std::string& b, const std::vector<std::string>& files) const {
    for (const std::string& file : files) {
      EXPECT_NE(bytes_of(folder_ / a / file), "") << a << ", " << file;
      EXPECT_EQ(bytes_of(folder_ / a / file), bytes_of(folder_ / b / file)) << a << ", " << b << ", " << file;
    }
  }
  void expect_same_result(const std::string& a, const std::string& b) const {
    expect_same_files(a, b, {"adapter_model.safetensors", "metrics.jsonl"});
  }
  double first_loss(const std::string& output) const {
    const std::string metrics = bytes_of(folder_ / output / "metrics.jsonl");
    return json::parse(metrics.substr(0, metrics.find('\n')))["loss"].get<double>();
  }
  // By /proc: a process that nobody has waited for has ended, too.
  static bool is_running(pid_t process) {
    const std::string stat = bytes_of("/proc/" + std::to_string(process) + "/stat");
    const size_t end = stat.rfind(')');
    return end != std::string::npos && end + 2 < stat.size() && stat[end + 2] != 'Z' && stat[end + 2] != 'X';
  }
  static std::vector<pid_t> children_of(pid_t parent) {
    std::vector<pid_t> children;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const std::string stat = bytes_of(entry.path() / "stat");
      const size_t end = stat.rfind(')');
      if (end == std::string::npos) continue;
      std::istringstream fields(stat.substr(end + 1));
      char state = 0;
      pid_t of = 0;
      fields >> state >> of;
      if (of == parent) children.push_back(static_cast<pid_t>(std::stol(name)));
    }
    return children;
  }
};

// The epoch of ten rows ends with one row for three ranks, two of which have nothing to do.
TEST_F(LatheTrainRanks, HaveTheBitsOfOneProcessThatDoesTheWorkOfAll) {
  for (const int ranks : {2, 3}) {
    const std::string name = std::to_string(ranks);
    const std::vector<std::string> rows = {"--dataset", (folder_ / (ranks == 2 ? "rows.jsonl" : "more.jsonl")).string(),
                                           "--per_device_train_batch_size", ranks == 2 ? "4" : "1"};
    ASSERT_EQ(run(on(ranks, sft("several" + name, rows))), 0) << err();
    ASSERT_EQ(run(sft("one" + name, joined(rows, {"--world_size", name}))), 0) << err();
    expect_same_result("several" + name, "one" + name);
    EXPECT_NE(bytes_of(folder_ / ("several" + name) / "config.yaml").find("world_size: " + name), std::string::npos);
    ASSERT_EQ(run(sft("accumulated" + name, joined(rows, {"--gradient_accumulation_steps", name}))), 0) << err();
    EXPECT_NEAR(first_loss("several" + name), first_loss("accumulated" + name), 1e-6)
        << "the same rows, added otherwise";
  }
}

// What sorts the pairs of a step, what is computed before the first, what follows the model: of all ranks' rows alike.
TEST_F(LatheTrainRanks, OfPreferencesHaveTheBitsOfOneProcess) {
  const std::vector<std::vector<std::string>> cases = {
      {"--loss_type", "sigmoid", "sft", "--loss_weights", "1", "0.1"},
      {"--loss_type", "aot", "--eval_dataset", (folder_ / "pairs.jsonl").string()},
      {"--precompute_ref_log_probs"},
      {"--use_peft", "false", "--sync_ref_model", "--ref_model_sync_steps", "1"}};
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string name = std::to_string(i), ranks = i == 0 ? "3" : "2";
    ASSERT_EQ(run(on(std::stoi(ranks), dpo("several" + name, cases[i]))), 0) << err();
    ASSERT_EQ(run(dpo("one" + name, joined(cases[i], {"--world_size", ranks}))), 0) << err();
    EXPECT_EQ(bytes_of(folder_ / ("several" + name) / "metrics.jsonl"),
              bytes_of(folder_ / ("one" + name) / "metrics.jsonl"))
        << name;
    const char* weights = i == 3 ? "model.safetensors" : "adapter_model.safetensors";
    EXPECT_EQ(bytes_of(folder_ / ("several" + name) / weights), bytes_of(folder_ / ("one" + name) / weights)) << name;
  }
  // The reference that followed is what a run goes on with, on every rank.
  ASSERT_EQ(run(on(2, dpo("stopped", joined(cases[3], {"--save_steps", "1"})))), 0) << err();
  for (const char* later : {"checkpoint-3", "checkpoint-4"}) fs::remove_all(folder_ / "stopped" / later);
  ASSERT_EQ(run(on(2, dpo("stopped", joined(cases[3], {"--save_steps", "1", "--resume"})))), 0) << err();
  EXPECT_EQ(bytes_of(folder_ / "stopped/model.safetensors"), bytes_of(folder_ / "one3/model.safetensors"));
}

// Steps that share a generation batch and go over it again, with dropout; epochs that end with a prompt for three
// ranks; what is a whole step's or batch's: the quantile of entropies, the deviation of rewards; a reference that
// follows.
TEST_F(LatheTrainRanks, OfRewardsHaveTheBitsOfOneProcess) {
  const std::vector<std::vector<std::string>> cases = {
      {"--generation_batch_size", "16", "--num_iterations", "2", "--beta", "0.05", "--lora_dropout", "0.1"},
      {"--eval_dataset", (folder_ / "prompts.jsonl").string(), "--eval_steps", "2", "--log_completions"},
      {"--entropy_coef", "0.01", "--top_entropy_quantile", "0.4", "--scale_rewards", "batch",
       "--mask_truncated_completions", "--reward_funcs", "repetition,length", "--reward_length", "2",
       "--multi_objective_aggregation", "normalize_then_sum"},
      {"--use_peft", "false", "--beta", "0.05", "--sync_ref_model", "--ref_model_sync_steps", "1", "--learning_rate",
       "1e-3"}};
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string name = std::to_string(i), ranks = i == 1 ? "3" : "2", several = "several" + name,
                      one = "one" + name;
    ASSERT_EQ(run(on(std::stoi(ranks), grpo(several, joined({"--lora_dropout", "0"}, cases[i])))), 0) << err();
    ASSERT_EQ(run(grpo(one, joined({"--lora_dropout", "0", "--world_size", ranks}, cases[i]))), 0) << err();
    expect_same_files(several, one,
                      {"metrics.jsonl", i == 3 ? "model.safetensors" : "adapter_model.safetensors",
                       "checkpoint-1/objective/generation_batch.json"});
    if (i == 1) expect_same_files(several, one, {"completions/completions_00003.jsonl"});
  }
  // What steps still learn from, and the reference that followed, are what a run goes on with, on every rank.
  for (const size_t i : {size_t{0}, size_t{3}}) {
    const std::string name = "several" + std::to_string(i);
    for (const char* later : {"checkpoint-2", "checkpoint-3", "checkpoint-4", "checkpoint-5", "checkpoint-6"})
      fs::remove_all(folder_ / name / later);
    ASSERT_EQ(run(on(2, grpo(name, joined({"--lora_dropout", "0", "--resume"}, cases[i])))), 0) << err();
    EXPECT_NE(err().find("going on from"), std::string::npos) << err();
    expect_same_files(name, "one" + std::to_string(i),
                      {"metrics.jsonl", i == 3 ? "model.safetensors" : "adapter_model.safetensors"});
  }
}

// Prompts that only one rank can answer, from a stream that the first reads.
TEST_F(LatheTrainRanks, OfRewardsShareAStream) {
  const auto streamed = [&](const std::string& output, const std::vector<std::string>& more) {
    return joined(grpo(output, {"--streaming", "--max_prompt_length", "16", "--per_device_train_batch_size", "2",
                                "--num_iterations", "2", "--lora_dropout", "0"}),
                  more);
  };
  ASSERT_EQ(run(streamed("one", {"--world_size", "2"})), 0) << err();
  ASSERT_EQ(run(on(2, streamed("several", {}))), 0) << err();
  EXPECT_NE(err().find("1 of 2 ranks generate nothing"), std::string::npos) << err();
  expect_same_result("one", "several");
  for (const char* later : {"checkpoint-4", "checkpoint-5", "checkpoint-6"})
    fs::remove_all(folder_ / "several" / later);
  ASSERT_EQ(run(on(2, streamed("several", {"--resume"}))), 0) << err();
  expect_same_result("one", "several");
}

// Each rank has a judge of its own. Where one dies, all ranks stop after the same step, which is kept.
TEST_F(LatheTrainRanks, AJudgeThatDiesOnOneStopsAllAndTheRunGoesOn) {
  const auto judged = [&](const std::string& output, const std::string& at, const std::vector<std::string>& more = {}) {
    const std::string judge =
        "n=0; while IFS= read -r line; do n=$((n+1)); if [ ${OMPI_COMM_WORLD_RANK:-0} -eq 1 ] && "
        "[ $n -eq " +
        at + " ]; then exit 3; fi; echo $((${#line} % 7)); done";
    return joined(grpo(output, {"--reward_command", judge, "--lora_dropout", "0", "--save_steps", "0"}), more);
  };
  ASSERT_EQ(run(judged("one", "0", {"--world_size", "2"})), 0) << err();
  ASSERT_EQ(run(on(2, judged("whole", "0"))), 0) << err();
  expect_same_result("one", "whole");
  EXPECT_NE(run(on(2, judged("run", "2"))), 0);  // within the first step: there is nothing to keep
  EXPECT_NE(err().find("rank 1: " + (folder_ / "prompts.jsonl").string() + ", line "), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run/checkpoint-1"));
  fs::remove_all(folder_ / "run");
  EXPECT_NE(run(on(2, judged("run", "11"))), 0);  // in the third
  EXPECT_NE(err().find("exit code 3 and answered 2 of 4"), std::string::npos) << err();
  EXPECT_NE(err().find("--resume goes on from there"), std::string::npos) << err();
  EXPECT_TRUE(fs::exists(folder_ / "run/checkpoint-2/manifest.json"));
  ASSERT_EQ(run(on(2, judged("run", "0", {"--resume"}))), 0) << err();
  expect_same_result("one", "run");
  // In an evaluation, too.
  const std::vector<std::string> evaluated = {"--eval_dataset", (folder_ / "prompts.jsonl").string(), "--eval_steps",
                                              "2"};
  EXPECT_NE(run(on(2, judged("evaluated", "10", evaluated))), 0);
  EXPECT_NE(err().find("exit code 3 and answered 1 of 16"), std::string::npos) << err();
  EXPECT_TRUE(fs::exists(folder_ / "evaluated/checkpoint-2/manifest.json"));
}

// The main process alone reads the stream; the others get what came, from standard input, too.
TEST_F(LatheTrainRanks, ShareAStream) {
  const std::string rows = (folder_ / "rows.jsonl").string();
  const auto streamed = [&](const std::string& output, const std::string& dataset,
                            const std::vector<std::string>& more = {}) {
    return joined(sft(output, {"--dataset", dataset, "--max_length", "32", "--max_steps", "6", "--save_steps", "1"}),
                  more);
  };
  ASSERT_EQ(run(streamed("file", rows, {"--shuffle", "false", "--world_size", "2"})), 0) << err();
  ASSERT_EQ(run(on(2, streamed("stream", rows, {"--streaming"}))), 0) << err();
  expect_same_result("file", "stream");
  // It ends within the third step: both ranks stop after the second, and go on from there.
  const std::string pipe = (folder_ / "pipe").string();
  ASSERT_EQ(std::system(("mkfifo " + pipe).c_str()), 0);
  const auto feed = [&](const std::string& what) { return std::system((what + " > " + pipe + " &").c_str()); };
  ASSERT_EQ(feed("head -n 10 " + rows), 0);
  EXPECT_NE(run(on(2, streamed("piped", pipe, {"--streaming"}))), 0);
  EXPECT_NE(err().find("has ended after 10 rows"), std::string::npos) << err();
  EXPECT_TRUE(fs::exists(folder_ / "piped/checkpoint-2/manifest.json"));
  ASSERT_EQ(feed("cat " + rows), 0);
  EXPECT_EQ(run(on(2, streamed("piped", pipe, {"--streaming", "--resume"}))), 0) << err();
  expect_same_result("file", "piped");
  ASSERT_EQ(run(on(2, dpo("pairs", {"--streaming", "--max_steps", "2"}))), 0) << err();
  ASSERT_EQ(run(dpo("pairs-one", {"--streaming", "--max_steps", "2", "--world_size", "2"})), 0) << err();
  expect_same_result("pairs", "pairs-one");
}

TEST_F(LatheTrainRanks, WhenOneOfRewardsIsKilledAllEndAndTheRunGoesOn) {
  const std::vector<std::string> steps = {"--max_steps", "16",   "--num_iterations", "2",
                                          "--beta",      "0.05", "--lora_dropout",   "0"};
  ASSERT_EQ(run(on(2, grpo("whole", steps))), 0) << err();
  for (const size_t victim : {size_t{0}, size_t{1}}) {
    const std::string output = "killed" + std::to_string(victim);
    const pid_t launcher = start(on(2, grpo(output, steps)));
    while (!fs::exists(folder_ / output / "checkpoint-3") && ::waitpid(launcher, nullptr, WNOHANG) == 0)
      ::sched_yield();
    const std::vector<pid_t> ranks = children_of(launcher);
    ASSERT_EQ(ranks.size(), 2u) << err();
    ::kill(ranks[victim], SIGKILL);
    int status = 0;
    ::waitpid(launcher, &status, 0);
    EXPECT_NE(status, 0);
    for (const pid_t rank : ranks)
      while (is_running(rank)) ::sched_yield();
    ASSERT_FALSE(fs::exists(folder_ / output / "checkpoint-16"));
    ASSERT_EQ(run(on(2, grpo(output, joined(steps, {"--resume"})))), 0) << err();
    expect_same_result("whole", output);
  }
}

TEST_F(LatheTrainRanks, WhenOneIsKilledAllEndAndTheRunGoesOn) {
  const std::vector<std::string> steps = {"--max_steps", "30"};
  ASSERT_EQ(run(on(2, sft("whole", steps))), 0) << err();
  const pid_t launcher = start(on(2, sft("killed", steps)));
  while (!fs::exists(folder_ / "killed/checkpoint-6") && ::waitpid(launcher, nullptr, WNOHANG) == 0) ::sched_yield();
  const std::vector<pid_t> ranks = children_of(launcher);
  ASSERT_EQ(ranks.size(), 2u) << err();
  ::kill(ranks[1], SIGKILL);
  int status = 0;
  ::waitpid(launcher, &status, 0);
  EXPECT_NE(status, 0);
  for (const pid_t rank : ranks)
    while (is_running(rank)) ::sched_yield();  // the launcher does not wait for them
  ASSERT_FALSE(fs::exists(folder_ / "killed/checkpoint-30"));
  fs::copy(folder_ / "killed", folder_ / "alone", fs::copy_options::recursive);
  ASSERT_EQ(run(on(2, sft("killed", joined(steps, {"--resume"})))), 0) << err();
  expect_same_result("whole", "killed");
  ASSERT_EQ(run(sft("alone", joined(steps, {"--resume", "--world_size", "2"}))), 0) << err();
  expect_same_result("whole", "alone");
  EXPECT_EQ(run(sft("alone", joined(steps, {"--resume", "--per_device_train_batch_size", "4"}))), 2);
  EXPECT_NE(err().find("was made with 4 of 2 ranks, this run has 4"), std::string::npos) << err();
}

TEST_F(LatheTrainRanks, RefuseWhatTheyCannotShare) {
  EXPECT_NE(run(on(2, sft("run", {"--world_size", "3"}))), 0);
  EXPECT_NE(err().find("world_size: is 3, and 2 processes were started"), std::string::npos) << err();
  EXPECT_EQ(run(grpo("run", {"--world_size", "2", "--generation_batch_size", "12"})), 2);
  EXPECT_NE(err().find("a multiple of the 8 completions of an optimiser step"), std::string::npos) << err();
  EXPECT_NE(err().find("world_size 2"), std::string::npos) << err();
  EXPECT_EQ(run(grpo("run", {"--world_size", "2", "--dry_run"})), 0) << err();
  EXPECT_NE(err().find("8 completions at once, 4 of each prompt"), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

}  // namespace
}  // namespace lathe
