// The program itself: exit codes, what it leaves behind, its errors, and kill -9 with --resume.
#include <sched.h>
#include <signal.h>

#include "tests/programs/program_test.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

using LatheTrain = ProgramTest;

TEST_F(LatheTrain, LeavesAnAdapterMetricsReportConfigAndCheckpoints) {
  ASSERT_EQ(run(arguments("run", {"--json"})), 0) << err();
  const auto summary = nlohmann::json::parse(out());
  EXPECT_EQ(summary["steps"], 6);
  EXPECT_GT(summary["peak_memory_bytes"].get<int64_t>(), 0);
  for (const char* name :
       {"adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "timings.jsonl", "report.html",
        "config.yaml", "checkpoint-2/manifest.json", "checkpoint-6/optimizer.safetensors"})
    EXPECT_TRUE(fs::exists(folder_ / "run" / name)) << name;
}

TEST_F(LatheTrain, ItsResolvedConfigRepeatsTheRun) {
  ASSERT_EQ(run(arguments("run", {"--warmup_ratio", "0.5", "--packing"})), 0) << err();
  ASSERT_EQ(run({"bin/lathe-train", "sft", "--config", (folder_ / "run/config.yaml").string(), "--output_dir",
                 (folder_ / "again").string()}),
            0)
      << err();
  EXPECT_EQ(bytes_of(folder_ / "run/metrics.jsonl"), bytes_of(folder_ / "again/metrics.jsonl"));
  EXPECT_EQ(bytes_of(folder_ / "run/adapter_model.safetensors"), bytes_of(folder_ / "again/adapter_model.safetensors"));
}

TEST_F(LatheTrain, AConfigFindsTheDatasetBesideIt) {
  std::ofstream(folder_ / "sft.yaml") << "dataset: rows.jsonl\nmax_steps: 1\n";
  EXPECT_EQ(run({"bin/lathe-train", "sft", "--config", (folder_ / "sft.yaml").string(), "--model",
                 (folder_ / "model").string(), "--output_dir", (folder_ / "run").string()}),
            0)
      << err();
}

TEST_F(LatheTrain, ADryRunWritesNothing) {
  ASSERT_EQ(run(arguments("run", {"--dry_run", "--json"})), 0) << err();
  const auto plan = nlohmann::json::parse(out());
  EXPECT_EQ(plan["rows"], 24);
  EXPECT_EQ(plan["total_steps"], 6);
  EXPECT_GT(plan["memory_bytes"]["total"].get<int64_t>(), 0);
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(LatheTrain, WrongSettingsAreExitCodeTwoAllAtOnce) {
  EXPECT_EQ(run(arguments("run", {"--adam_beta1", "2", "--packing_strategy", "tight"})), 2);
  EXPECT_NE(err().find("adam_beta1"), std::string::npos) << err();
  EXPECT_NE(err().find("packing_strategy"), std::string::npos) << err();
  EXPECT_EQ(run(arguments("run", {"--no_such_flag", "1"})), 2);
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(LatheTrain, ABadRowIsNamedByItsLineAndNothingIsWritten) {
  for (const char* row : {"{\"input_ids\": [1, 2", "{\"question\": \"?\"}", "{\"input_ids\": [1, 2.5]}", "[1]"}) {
    std::ofstream(folder_ / "bad.jsonl") << "{\"input_ids\": [1, 2, 3]}\n" << row << "\n";
    EXPECT_EQ(run(arguments("run", {"--dataset", (folder_ / "bad.jsonl").string()})), 1) << row;
    EXPECT_NE(err().find("line 2"), std::string::npos) << err();
    EXPECT_FALSE(fs::exists(folder_ / "run"));
  }
}

TEST_F(LatheTrain, RowsWithNothingToLearnAndRowsTooLongAreErrorsWhereAsked) {
  std::ofstream(folder_ / "mute.jsonl") << "{\"input_ids\": [1, 2], \"labels\": [-100, -100]}\n";
  EXPECT_EQ(run(arguments("run", {"--dataset", (folder_ / "mute.jsonl").string()})), 2);
  EXPECT_NE(err().find("line 1"), std::string::npos) << err();
  EXPECT_EQ(run(arguments("run", {"--max_length", "8", "--too_long", "error"})), 1);
  EXPECT_NE(err().find("max_length is 8"), std::string::npos) << err();
}

TEST_F(LatheTrain, KilledAtACheckpointItResumesToTheSameBytes) {
  ASSERT_EQ(run(arguments("whole")), 0) << err();
  const pid_t child = start(arguments("killed", {"--resume", "--threads", "1"}));
  while (!fs::exists(folder_ / "killed/checkpoint-2") && ::waitpid(child, nullptr, WNOHANG) == 0) ::sched_yield();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_EQ(run(arguments("killed", {"--resume"})), 0) << err();
  EXPECT_NE(err().find("going on from"), std::string::npos) << err();
  for (const char* name : {"metrics.jsonl", "adapter_model.safetensors"})
    EXPECT_EQ(bytes_of(folder_ / "whole" / name), bytes_of(folder_ / "killed" / name)) << name;
}

}  // namespace
}  // namespace lathe
