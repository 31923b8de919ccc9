// The program itself: exit codes, what it leaves behind, its errors, and kill -9 with --resume.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/random.h"
#include "tests/support/temporary_folder.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

// A folder with a MODEL (the tiny golden Llama with a tokenizer) and rows of ids for it.
class LatheTrain : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(fs::exists("bin/lathe-train")) << "run from the build folder, after building lathe-train";
    const fs::path golden = fs::path(LATHE_SOURCE_DIR) / "tests/golden";
    fs::create_directory(folder_ / "model");
    for (const char* file : {"config.json", "model.safetensors"})
      fs::copy_file(golden / "tiny_llama/untied" / file, folder_ / "model" / file);
    fs::copy_file(golden / "tokenizer/byte_level/tokenizer.json", folder_ / "model/tokenizer.json");
    RandomStream random(1, RandomPurpose::test);
    std::ofstream rows(folder_ / "rows.jsonl");
    for (int row = 0; row < 24; ++row) {
      nlohmann::json ids = nlohmann::json::array();
      for (uint64_t i = 0, length = 6 + random.below(12); i < length; ++i) ids.push_back(random.below(320));
      rows << nlohmann::json{{"input_ids", ids}}.dump() << "\n";
    }
  }

  std::vector<std::string> arguments(const std::string& output_dir, std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {"bin/lathe-train", "sft",
                                    "--model",         (folder_ / "model").string(),
                                    "--dataset",       (folder_ / "rows.jsonl").string(),
                                    "--output_dir",    (folder_ / output_dir).string(),
                                    "--max-steps",     "6",
                                    "--save_steps",    "2",
                                    "--logging_steps", "1",
                                    "--lora_r",        "4"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  // Standard output and error go to files in the folder.
  pid_t start(const std::vector<std::string>& arguments) const {
    const pid_t child = ::fork();
    if (child != 0) return child;
    if (::freopen((folder_ / "out").c_str(), "w", stdout) == nullptr ||
        ::freopen((folder_ / "err").c_str(), "w", stderr) == nullptr)
      ::_exit(99);
    std::vector<char*> raw;
    for (const std::string& argument : arguments) raw.push_back(const_cast<char*>(argument.c_str()));
    raw.push_back(nullptr);
    ::execv(raw[0], raw.data());
    ::_exit(98);
  }
  int run(const std::vector<std::string>& arguments) const {
    int status = 0;
    ::waitpid(start(arguments), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string out() const { return bytes_of(folder_ / "out"); }
  std::string err() const { return bytes_of(folder_ / "err"); }

  TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path();
};

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
