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
  void expect_same_result(const std::string& a, const std::string& b) const {
    for (const char* file : {"adapter_model.safetensors", "metrics.jsonl"})
      EXPECT_EQ(bytes_of(folder_ / a / file), bytes_of(folder_ / b / file)) << a << ", " << b << ", " << file;
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
  EXPECT_EQ(run(sft("run", {"--world_size", "2", "--streaming"})), 2);
  EXPECT_NE(err().find("streaming: is for one rank"), std::string::npos) << err();
  std::vector<std::string> dpo = sft("run", {"--world_size", "2"});
  dpo[1] = "dpo";
  EXPECT_EQ(run(dpo), 2);
  EXPECT_NE(err().find("has no steps that ranks share"), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

}  // namespace
}  // namespace lathe
