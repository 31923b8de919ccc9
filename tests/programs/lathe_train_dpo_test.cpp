// lathe-train dpo as a program: what it leaves behind, its errors, and kill -9 with --resume.
#include <sched.h>
#include <signal.h>

#include "tests/programs/program_test.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class LatheTrainDpo : public ProgramTest {
 protected:
  // Digits: the tiny model has no other tokens of this tokenizer for sure.
  void SetUp() override {
    ProgramTest::SetUp();
    std::ofstream(folder_ / "model/tokenizer_config.json") << R"({"eos_token": "<|im_end|>"})";
    RandomStream random(3, RandomPurpose::test);
    const auto digits = [&] {
      std::string text;
      for (uint64_t i = 0, length = 2 + random.below(8); i < length; ++i)
        text += static_cast<char>('0' + static_cast<int>(random.below(10)));
      return text;
    };
    std::ofstream rows(folder_ / "pairs.jsonl");
    for (int row = 0; row < 16; ++row)
      rows << nlohmann::json{{"prompt", digits()}, {"chosen", digits() + "1"}, {"rejected", digits() + "2"}}.dump()
           << "\n";
  }

  std::vector<std::string> dpo(const std::string& output_dir, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = arguments(output_dir);
    all[1] = "dpo";
    for (const char* argument : {"--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--dtype", "float32"})
      all.emplace_back(argument);
    return joined(joined(std::move(all), {"--dataset", (folder_ / "pairs.jsonl").string()}), more);
  }
};

TEST_F(LatheTrainDpo, LeavesAnAdapterMetricsAndAReportWithRewards) {
  ASSERT_EQ(run(dpo("run", {"--eval_dataset", (folder_ / "pairs.jsonl").string(), "--loss_type", "sigmoid", "sft",
                            "--loss_weights", "1", "0.1"})),
            0)
      << err();
  for (const char* name :
       {"adapter_config.json", "adapter_model.safetensors", "config.yaml", "checkpoint-6/manifest.json"})
    EXPECT_TRUE(fs::exists(folder_ / "run" / name)) << name;
  const std::string metrics = bytes_of(folder_ / "run/metrics.jsonl"), report = bytes_of(folder_ / "run/report.html");
  for (const char* metric : {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
                             "logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected"}) {
    EXPECT_NE(metrics.find('"' + std::string(metric) + '"'), std::string::npos) << metric;
    EXPECT_NE(metrics.find("\"eval_" + std::string(metric) + '"'), std::string::npos) << metric;
    EXPECT_NE(report.find(std::string(metric)), std::string::npos) << metric;
  }
  EXPECT_NE(report.find("rejected: "), std::string::npos);
  EXPECT_NE(bytes_of(folder_ / "run/config.yaml").find("loss_type: 'sigmoid,sft'"), std::string::npos);
}

TEST_F(LatheTrainDpo, AStreamHasTheBitsOfTheFileInOrderAndResumes) {
  const auto streamed = [&](const std::string& output, const std::string& dataset,
                            const std::vector<std::string>& more) {
    return joined(dpo(output, {"--dataset", dataset, "--max_steps", "4", "--save_steps", "1", "--logging_steps", "1",
                               "--max_length", "64"}),
                  more);
  };
  const std::string rows = (folder_ / "pairs.jsonl").string(), pipe = (folder_ / "pipe").string();
  const auto expect_same = [&](const std::string& output) {
    for (const char* name : {"metrics.jsonl", "adapter_model.safetensors"})
      EXPECT_EQ(bytes_of(folder_ / "file" / name), bytes_of(folder_ / output / name)) << output << " " << name;
  };
  ASSERT_EQ(run(streamed("file", rows, {"--shuffle", "false"})), 0) << err();
  ASSERT_EQ(run(streamed("stream", rows, {"--streaming"})), 0) << err();
  expect_same("stream");
  ASSERT_EQ(std::system(("mkfifo " + pipe).c_str()), 0);
  const auto feed = [&](const std::string& what) { return std::system((what + " > " + pipe + " &").c_str()); };
  ASSERT_EQ(feed("head -n 10 " + rows), 0);  // the stream ends within the third step
  EXPECT_EQ(run(streamed("piped", pipe, {"--streaming"})), 1);
  EXPECT_NE(err().find("has ended after 10 rows"), std::string::npos) << err();
  ASSERT_EQ(feed("cat " + rows), 0);
  EXPECT_EQ(run(streamed("piped", pipe, {"--streaming", "--resume"})), 0) << err();
  expect_same("piped");
  EXPECT_EQ(run(streamed("none", rows, {"--streaming", "--max_steps", "-1"})), 2);
  EXPECT_NE(err().find("streaming: needs max_steps"), std::string::npos) << err();
  EXPECT_EQ(run(streamed("none", rows, {"--streaming", "--precompute_ref_log_probs"})), 2);
  EXPECT_NE(err().find("not there before the first step"), std::string::npos) << err();
  EXPECT_EQ(run(streamed("none", rows, {"--streaming", "--use_peft", "false"})), 2);
  EXPECT_NE(err().find("streaming: needs an adapter"), std::string::npos) << err();
}

TEST_F(LatheTrainDpo, ListsInTheConfigGiveWayToTheCommandLine) {
  std::ofstream(folder_ / "dpo.yaml") << "loss_type: [hinge, sft]\nloss_weights: [1, 2]\n";
  ASSERT_EQ(run(dpo("run", {"--dry_run", "--config", (folder_ / "dpo.yaml").string()})), 0) << err();
  EXPECT_NE(err().find("loss: hinge,sft,"), std::string::npos) << err();
  ASSERT_EQ(run(dpo("run", {"--dry_run", "--config", (folder_ / "dpo.yaml").string(), "--loss_type", "ipo",
                            "--loss_weights", "3"})),
            0)
      << err();
  EXPECT_NE(err().find("loss: ipo,"), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(LatheTrainDpo, WhatIsWrongIsSaidAndNothingIsWritten) {
  EXPECT_EQ(run(dpo("run", {"--loss_type", "sigmoyd"})), 2);
  EXPECT_NE(err().find("unknown loss type 'sigmoyd'; should be one of sigmoid, hinge"), std::string::npos) << err();
  std::ofstream(folder_ / "bad.jsonl") << R"({"prompt": "1", "chosen": "2", "rejected": "3"})"
                                       << "\n"
                                       << R"({"prompt": "1", "rejected": "3"})"
                                       << "\n";
  EXPECT_EQ(run(dpo("run", {"--dataset", (folder_ / "bad.jsonl").string()})), 1);
  EXPECT_NE(err().find("bad.jsonl: line 2: has no \"chosen\""), std::string::npos) << err();
  std::ofstream(folder_ / "same.jsonl") << R"({"prompt": "1", "chosen": "2", "rejected": "2"})"
                                        << "\n";
  EXPECT_EQ(run(dpo("run", {"--dataset", (folder_ / "same.jsonl").string()})), 2);
  EXPECT_NE(err().find("line 1: \"chosen\" and \"rejected\" are the same"), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

// Names and sizes of all that is there. Files come and go while it looks.
std::string contents_of(const fs::path& folder) {
  std::string contents;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code gone;
    contents += entry->path().string() + " " + std::to_string(fs::file_size(entry->path(), gone)) + "\n";
  }
  return contents;
}

// Kills the child as soon as it has changed the folder so many times, unless it ends before.
void kill_after_changes(pid_t child, const fs::path& folder, int changes) {
  std::string seen = contents_of(folder);
  while (changes > 0 && ::waitpid(child, nullptr, WNOHANG) == 0) {
    std::string now = contents_of(folder);
    if (now == seen) {
      ::sched_yield();
      continue;
    }
    seen = std::move(now);
    --changes;
  }
  if (changes > 0) return;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST_F(LatheTrainDpo, KilledWhateverItHasJustWrittenItResumesToTheSameBytes) {
  ASSERT_EQ(run(dpo("whole", {"--precompute_ref_log_probs"})), 0) << err();
  for (int changes = 1; changes <= 20; ++changes) {
    const std::string name = "killed" + std::to_string(changes);
    kill_after_changes(start(dpo(name, {"--precompute_ref_log_probs", "--resume"})), folder_ / name, changes);
    ASSERT_EQ(run(dpo(name, {"--precompute_ref_log_probs", "--resume", "--threads", "1"})), 0) << err();
    for (const char* file : {"metrics.jsonl", "adapter_model.safetensors"})
      EXPECT_EQ(bytes_of(folder_ / "whole" / file), bytes_of(folder_ / name / file)) << file;
  }
}

}  // namespace
}  // namespace lathe
