// --device on the programs themselves: what they answer and learn on simt, or on a card, is what they do on the CPU.
#include "kernels/cuda/runtime.h"
#include "tests/programs/program_test.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class DeviceProgram : public ProgramTest {
 protected:
  nlohmann::json json_of(std::vector<std::string> arguments) const {
    arguments.push_back("--json");
    EXPECT_EQ(run(arguments), 0) << err();
    return nlohmann::json::parse(out(), nullptr, false);
  }
  std::vector<std::string> generate(const std::string& device, const std::string& dtype,
                                    std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {"bin/lathe-model",
                                    "generate",
                                    (folder_ / "model").string(),
                                    "--raw",
                                    "--prompt",
                                    "it is",
                                    "--max_tokens",
                                    "6",
                                    "--device",
                                    device,
                                    "--dtype",
                                    dtype};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::vector<nlohmann::json> metrics(const std::string& run) const {
    std::vector<nlohmann::json> lines;
    std::ifstream stream(folder_ / run / "metrics.jsonl");
    for (std::string line; std::getline(stream, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }
};

class ProgramOnDevice : public DeviceProgram, public testing::WithParamInterface<std::string> {
 protected:
  const std::string device_ = GetParam();

  void SetUp() override {
    if (const std::string why = kernels::why_unavailable(parse_device(device_)); !why.empty()) GTEST_SKIP() << why;
    DeviceProgram::SetUp();
  }
};

TEST_P(ProgramOnDevice, GenerateAnswersAsOnTheCpu) {
  const std::vector<std::string> sampled = {"--temperature", "1", "--seed", "5"};
  EXPECT_EQ(json_of(generate(device_, "f32"))["tokens"], json_of(generate("cpu", "f32"))["tokens"]);
  EXPECT_EQ(json_of(generate(device_, "f32", sampled))["tokens"], json_of(generate("cpu", "f32", sampled))["tokens"]);
  const nlohmann::json graphs = {{"captured", 1}, {"replayed", 4}};  // the first of six tokens is the prefill's
  EXPECT_EQ(json_of(generate(device_, "f32"))["decode_graphs"], graphs);
  // bf16 rounds at other places on the CPU: the same answer twice is what can be asked.
  const auto answer = json_of(generate(device_, "bf16"));
  EXPECT_EQ(answer["tokens"].size(), 6u);
  EXPECT_EQ(json_of(generate(device_, "bf16"))["tokens"], answer["tokens"]);
}

// The prompt's rows at once, then one after the other.
TEST_P(ProgramOnDevice, AGgufFilesBlocksAnswerAsTheyDoWidened) {
  for (const char* dtype : {"q8_0", "q4_0", "q4_1"}) {
    const std::string gguf = (folder_ / (std::string(dtype) + ".gguf")).string();
    ASSERT_EQ(run({"bin/lathe-model", "convert", (folder_ / "model").string(), gguf, "--dtype", dtype}), 0) << err();
    const auto answer = [&](const std::string& weights) {
      return json_of({"bin/lathe-model", "generate", gguf, "--raw", "--prompt", "itisitisitisitisitisitisitis",
                      "--max_tokens", "6", "--device", device_, "--weights", weights});
    };
    const nlohmann::json kept = answer("file"), widened = answer("bf16");
    EXPECT_EQ(kept["weights"], "file");
    EXPECT_GE(kept["file_formats"].size(), 1u);
    EXPECT_EQ(widened["weights"], "bf16");
    EXPECT_EQ(kept["tokens"], widened["tokens"]) << dtype;
    EXPECT_EQ(kept["logprobs"], widened["logprobs"]) << dtype;
    EXPECT_EQ(kept["logprobs"].size(), 6u);
  }
}

TEST_P(ProgramOnDevice, EvalCountsAndScoresAsOnTheCpu) {
  std::ofstream(folder_ / "questions.jsonl") << R"({"input_ids": [5, 9, 300, 41], "labels": [-100, -100, 300, 41]}
{"input_ids": [7, 70, 12], "labels": [-100, 70, 12]}
)";
  const auto eval = [&](const std::string& device) {
    return json_of({"bin/lathe-model", "eval", (folder_ / "model").string(), "--dataset",
                    (folder_ / "questions.jsonl").string(), "--max_tokens", "4", "--dtype", "f32", "--device", device});
  };
  const auto on_cpu = eval("cpu"), on_device = eval(device_);
  EXPECT_EQ(on_device["correct"], on_cpu["correct"]);
  // f32 sums of a thousand terms: a few units of 2^-24 √1000.
  EXPECT_NEAR(on_device["loss"].get<double>(), on_cpu["loss"].get<double>(), 1e-5);
}

TEST_P(ProgramOnDevice, TrainingLearnsAsOnTheCpuAndResumesToTheSameBytes) {
  const std::vector<std::string> short_run = {"--max-steps",
                                              "3",
                                              "--save_steps",
                                              "1",
                                              "--dtype",
                                              "float32",
                                              "--lora_dropout",
                                              "0.1",
                                              "--per_device_train_batch_size",
                                              "2"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), short_run.begin(), short_run.end());
    return more;
  };
  ASSERT_EQ(run(arguments("cpu", short_run)), 0) << err();
  ASSERT_EQ(run(arguments("device", with({"--device", device_, "--json"}))), 0) << err();
  EXPECT_GT(nlohmann::json::parse(out())["peak_memory_bytes"].get<int64_t>(), 0);
  const auto on_cpu = metrics("cpu"), on_device = metrics("device");
  ASSERT_EQ(on_device.size(), on_cpu.size());
  for (size_t i = 0; i < on_cpu.size(); ++i) {
    EXPECT_NEAR(on_device[i]["loss"].get<double>(), on_cpu[i]["loss"].get<double>(), 1e-5) << i;
    EXPECT_NEAR(on_device[i]["grad_norm"].get<double>() / on_cpu[i]["grad_norm"].get<double>(), 1.0, 1e-4) << i;
  }
  // Killed after the first step: the checkpoint goes to the device and back without a changed bit.
  fs::create_directory(folder_ / "resumed");
  fs::copy(folder_ / "device/checkpoint-1", folder_ / "resumed/checkpoint-1", fs::copy_options::recursive);
  ASSERT_EQ(run(arguments("resumed", with({"--device", device_, "--resume"}))), 0) << err();
  EXPECT_NE(err().find("going on from"), std::string::npos) << err();
  EXPECT_EQ(bytes_of(folder_ / "resumed/adapter_model.safetensors"),
            bytes_of(folder_ / "device/adapter_model.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(, ProgramOnDevice, testing::Values("simt", "cuda"),
                         [](const auto& info) { return info.param; });

TEST_F(DeviceProgram, ADeviceThatIsNotThereIsOneSentence) {
  EXPECT_EQ(run(generate("simt:7", "f32")), 1);
  EXPECT_NE(err().find("error: device simt:7 does not exist: this machine has 2 of that kind"), std::string::npos)
      << err();
  EXPECT_EQ(run(generate("gpu", "f32")), 2);
  EXPECT_NE(err().find("expected cpu, cuda, cuda:N or simt"), std::string::npos) << err();
  EXPECT_EQ(run(generate("simt", "f64")), 2);
  EXPECT_NE(err().find("f64 runs on the cpu only"), std::string::npos) << err();
  EXPECT_EQ(run(arguments("none", {"--device", "simt:7"})), 1);
  EXPECT_FALSE(fs::exists(folder_ / "none"));
}

}  // namespace
}  // namespace lathe
