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

TEST_F(LatheTrain, ABaseThatIsInCodesAlreadyIsNeitherTrainedNorQuantisedAgainUnsaid) {
  const std::string model = (folder_ / "model").string(), gguf = (folder_ / "q8_0.gguf").string(),
                    codes = (folder_ / "codes").string();
  ASSERT_EQ(run({"bin/lathe-model", "convert", model, gguf, "--dtype", "q8_0"}), 0) << err();
  ASSERT_EQ(run(arguments("run", {"--model", gguf, "--load_in_4bit", "--dry_run"})), 0) << err();
  EXPECT_NE(err().find("q8_0.gguf holds its linears in Q8_0: load_in_4bit quantises"), std::string::npos) << err();
  ASSERT_EQ(run({"bin/lathe-model", "quantize", model, codes}), 0) << err();
  ASSERT_EQ(run(arguments("run", {"--model", codes, "--load_in_4bit", "--bnb_4bit_use_double_quant", "--dry_run"})), 0)
      << err();
  EXPECT_NE(err().find("nf4 codes already: they are used as they are"), std::string::npos) << err();
  EXPECT_EQ(run(arguments("run", {"--model", codes, "--load_in_8bit"})), 2);
  EXPECT_NE(err().find("leave load_in_8bit out, or give the model that was quantised"), std::string::npos) << err();
  EXPECT_EQ(run(arguments("run", {"--model", codes, "--use_peft", "false"})), 2);
  EXPECT_NE(err().find("4-bit codes, which are not trained"), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(LatheTrain, TrainsBesideWeightsInCodesAndTheAdapterIsLoadedBesideThem) {
  ASSERT_EQ(run(arguments("whole", {})), 0) << err();
  for (const std::string flag : {"--load_in_4bit", "--load_in_8bit"}) {
    ASSERT_EQ(run(arguments(flag, {flag})), 0) << err();
    EXPECT_NE(err().find(flag == "--load_in_4bit" ? "linears in nf4" : "linears in int8"), std::string::npos) << err();
    EXPECT_NE(bytes_of(folder_ / flag / "metrics.jsonl"), bytes_of(folder_ / "whole/metrics.jsonl"));
    EXPECT_NE(bytes_of(folder_ / flag / "config.yaml").find("gradient_checkpointing: true"), std::string::npos);
    EXPECT_EQ(run({"bin/lathe-model", "generate", (folder_ / "model").string(), "--adapter", (folder_ / flag).string(),
                   flag, "--raw", "--prompt", "it is", "--max_tokens", "3"}),
              0)
        << err();
  }
  EXPECT_EQ(run({"bin/lathe-model", "generate", (folder_ / "model").string(), "--load_in_4bit", "--load_in_8bit",
                 "--raw", "--prompt", "it is"}),
            2);
  EXPECT_NE(err().find("not both"), std::string::npos) << err();
}

TEST_F(LatheTrain, APlanNeedsAConfigAlone) {
  fs::create_directory(folder_ / "shape");
  fs::copy_file(folder_ / "model/config.json", folder_ / "shape/config.json");
  const std::string shape = (folder_ / "shape").string();
  ASSERT_EQ(run({"bin/lathe-train", "sft", "--model", shape, "--dry_run", "--load_in_4bit", "--max_length", "100",
                 "--per_device_train_batch_size", "2", "--json"}),
            0)
      << err();
  const auto plan = nlohmann::json::parse(out());
  EXPECT_EQ(plan["quantization"], "nf4");
  EXPECT_EQ(plan["all_params"].get<int64_t>() - plan["trainable_params"].get<int64_t>(), 127296);
  ASSERT_EQ(run({"bin/lathe-train", "sft", "--model", shape, "--dry_run", "--max_length", "100"}), 0) << err();
  EXPECT_NE(err().find("rows of 100 tokens are assumed"), std::string::npos) << err();
  EXPECT_NE(err().find("trainable params: "), std::string::npos) << err();
  EXPECT_NE(err().find("holds no weights"), std::string::npos) << err();
  const auto bytes = [&](const std::vector<std::string>& command) {
    EXPECT_EQ(run(joined({"bin/lathe-train"}, joined(command, {"--model", shape, "--dry_run", "--json"}))), 0) << err();
    return nlohmann::json::parse(out())["memory_bytes"];
  };
  // A pair is two sequences; a completion is generated beside its prompt.
  EXPECT_EQ(bytes({"dpo", "--max_length", "100", "--per_device_train_batch_size", "1"})["activations"],
            bytes({"sft", "--max_length", "200", "--per_device_train_batch_size", "1"})["activations"]);
  const auto rollouts =
      bytes({"grpo", "--reward_funcs", "number", "--max_prompt_length", "60", "--max_completion_length", "40",
             "--num_generations", "2", "--per_device_train_batch_size", "2"});
  EXPECT_EQ(rollouts["activations"],
            bytes({"sft", "--max_length", "100", "--per_device_train_batch_size", "2"})["activations"]);
  EXPECT_GT(rollouts["kv_cache"], 0);
  EXPECT_EQ(run({"bin/lathe-train", "sft", "--model", shape, "--output_dir", (folder_ / "run").string()}), 2);
  EXPECT_NE(err().find("dataset"), std::string::npos) << err();
  EXPECT_EQ(run(arguments("run", {"--model", shape})), 1);
  EXPECT_NE(err().find("neither model.safetensors nor"), std::string::npos) << err();
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

TEST_F(LatheTrain, RowsWithNothingToLearnAreNoSteps) {
  // One token a row has a label, which is never predicted.
  std::ofstream mixed(folder_ / "mixed.jsonl"), plain(folder_ / "plain.jsonl");
  for (const char* row : {"[5]", "[5]", "[1, 2, 3, 4]", "[6]", "[7, 8, 9, 10]", "[5]"}) {
    mixed << "{\"input_ids\": " << row << "}\n";
    if (std::string(row).size() > 3) plain << "{\"input_ids\": " << row << "}\n";
  }
  mixed.close();
  plain.close();
  for (const char* packing : {"false", "true"}) {
    std::string metrics[2];
    for (const char* rows : {"mixed", "plain"}) {
      ASSERT_EQ(run(arguments(rows, {"--dataset", (folder_ / rows).string() + ".jsonl", "--max_steps", "2",
                                     "--per_device_train_batch_size", "1", "--logging_steps", "2", "--max_length", "4",
                                     "--shuffle", "false", "--overwrite_output_dir", "--packing", packing})),
                0)
          << err();
      metrics[rows[0] == 'm'] = bytes_of(folder_ / rows / "metrics.jsonl");
    }
    EXPECT_EQ(metrics[0], metrics[1]) << packing;
  }
}

TEST_F(LatheTrain, TokensBeyondTheEmbeddingAreRefusedBeforeTraining) {
  std::ofstream(folder_ / "model/tokenizer_config.json") << R"({"eos_token": "<|im_end|>"})";
  std::ofstream(folder_ / "think.jsonl") << "{\"text\": \"it is\"}\n{\"text\": \"<think>\"}\n";
  EXPECT_EQ(run(arguments("run", {"--dataset", (folder_ / "think.jsonl").string()})), 1);
  EXPECT_NE(err().find("think.jsonl: line 2: holds the token 600"), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
  EXPECT_EQ(
      run({"bin/lathe-model", "eval", (folder_ / "model").string(), "--dataset", (folder_ / "think.jsonl").string()}),
      1);
  EXPECT_NE(err().find("line 2: holds the token 600"), std::string::npos) << err();
}

// A run that does not end by itself, in its second step or later.
class EndlessRun : public ProgramTest {
 protected:
  pid_t start_endless(std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--max_steps", "10000000", "--save_steps", "0"});
    fs::remove(folder_ / "err");  // an earlier run's
    const pid_t child = start(arguments("run", more));
    while (err().find("train 1/") == std::string::npos && ::waitpid(child, nullptr, WNOHANG) == 0) ::sched_yield();
    return child;
  }
  static int status_of(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }
};

TEST_F(EndlessRun, ASecondOneInTheSameFolderIsRefused) {
  const pid_t child = start_endless();
  ::kill(child, SIGSTOP);  // both write to the same files
  EXPECT_EQ(run(arguments("run", {"--max_steps", "10000000", "--resume"})), 2);
  EXPECT_NE(err().find("a run is still going on in " + (folder_ / "run").string()), std::string::npos) << err();
  EXPECT_NE(err().find("process " + std::to_string(child)), std::string::npos) << err();
  ::kill(child, SIGKILL);
  status_of(child);
}

TEST_F(EndlessRun, ASignalEndsItAfterTheStepWithACheckpoint) {
  std::vector<std::string> resume;
  for (const int signal : {SIGINT, SIGTERM}) {
    const pid_t child = start_endless(resume);
    ::kill(child, signal);
    const int status = status_of(child);
    ASSERT_TRUE(WIFEXITED(status)) << err();
    EXPECT_EQ(WEXITSTATUS(status), 128 + signal) << err();
    const std::string stopped = signal == SIGINT ? "stopped by SIGINT after step " : "stopped by SIGTERM after step ";
    const size_t at = err().find(stopped);
    ASSERT_NE(at, std::string::npos) << err();
    const std::string step = std::to_string(std::stoll(err().substr(at + stopped.size())));
    EXPECT_TRUE(fs::exists(folder_ / "run" / ("checkpoint-" + step) / "manifest.json")) << err();
    if (!resume.empty()) {
      EXPECT_NE(err().find("going on from"), std::string::npos) << err();
    }
    resume = {"--resume"};
  }
}

TEST_F(EndlessRun, ASecondSignalEndsItAtOnce) {
  const pid_t child = start_endless();
  ::kill(child, SIGSTOP);  // both are there before it goes on
  ::kill(child, SIGINT);
  ::kill(child, SIGTERM);
  ::kill(child, SIGCONT);
  EXPECT_TRUE(WIFSIGNALED(status_of(child))) << err();
  for (const auto& entry : fs::directory_iterator(folder_ / "run"))
    EXPECT_FALSE(entry.path().filename().string().starts_with("checkpoint-")) << entry.path();
}

TEST_F(LatheTrain, ABrokenNewestCheckpointIsNamed) {
  ASSERT_EQ(run(arguments("run")), 0) << err();
  fs::resize_file(folder_ / "run/checkpoint-6/optimizer.safetensors", 10);
  ASSERT_EQ(run(arguments("run", {"--resume"})), 0) << err();
  EXPECT_NE(err().find("warning: passed over checkpoint-6: optimizer.safetensors has 10 bytes"), std::string::npos)
      << err();
  EXPECT_NE(err().find("going on from " + (folder_ / "run/checkpoint-4").string()), std::string::npos) << err();
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
