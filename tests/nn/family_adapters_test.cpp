// LoRA beside PEFT, on every family: ten steps of gradient descent from the same adapter.
#include <gtest/gtest.h>

#include "kernels/add/add.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

class FamilyAdapter : public testing::TestWithParam<const char*> {};

TEST_P(FamilyAdapter, TrainsAsPeftDoes) {
  const std::string folder = std::string("family_adapters/") + GetParam();
  const nlohmann::json json = golden_json(folder + "/expected.json");
  const auto base = json["base"].get<std::string>();
  const nlohmann::json data = golden_json(base + "/expected.json");
  Transformer model = load(golden(base), DType::f32);
  model.load_adapter(read_peft_adapter(golden(folder)));
  std::vector<Parameter> parameters = model.trainable_parameters();
  std::map<std::string, double> travelled;
  for (const double expected : json["losses"]) {
    const double loss =
        backward_through(model, data["input_ids"].get<std::vector<std::vector<int32_t>>>(),
                         data["labels"].get<std::vector<std::vector<int32_t>>>(), data["num_labels"].get<int64_t>());
    EXPECT_NEAR(loss, expected, 1e-5 * expected);
    for (Parameter& parameter : parameters) {
      const auto learning_rate = json["learning_rate"].get<double>();
      travelled[parameter.name] += learning_rate * norm(parameter.leaf.grad());
      kernels::add(parameter.master, parameter.master, parameter.leaf.grad(), -learning_rate);
      parameter.leaf.zero_grad();
      parameter.refresh();
    }
  }
  const auto after = SafetensorsFile::open(golden(folder + "/after.safetensors"));
  const TemporaryFolder written;
  write_peft_adapter(written.path(), model.adapter());
  const auto ours = SafetensorsFile::open(written.path() / "adapter_model.safetensors");
  ASSERT_EQ(ours->names().size(), after->names().size());
  for (const std::string& name : after->names()) {
    // A gradient is good to 1e-4 of its norm (transformer_test.cpp), and what one of ten steps was off by comes back in
    // the gradients of those after it. Those of a layer's experts lie in one tensor.
    const std::string experts = name.substr(0, std::min(name.find(".mlp."), name.find(".feed_forward.")) + 1);
    double way = travelled.contains(name) ? travelled[name] : 0;
    for (const auto& [part, length] : travelled)
      if (way == 0 || !travelled.contains(name))
        way += part.starts_with(experts) && part.find(".experts.") != std::string::npos ? length : 0;
    EXPECT_LE(largest_difference(ours->tensor(name), after->tensor(name)), 10 * 1e-4 * way) << name;
  }
}

// What is written is what PEFT reads: its names, its shapes, its list of targets.
TEST_P(FamilyAdapter, IsWrittenAsPeftWroteIt) {
  const std::string folder = std::string("family_adapters/") + GetParam();
  Transformer model = load(golden(golden_json(folder + "/expected.json")["base"]), DType::f32);
  model.load_adapter(read_peft_adapter(golden(folder)));
  const TemporaryFolder written;
  write_peft_adapter(written.path(), model.adapter());
  const auto theirs = SafetensorsFile::open(golden(folder + "/adapter_model.safetensors"));
  const auto ours = SafetensorsFile::open(written.path() / "adapter_model.safetensors");
  ASSERT_EQ(ours->names(), theirs->names());
  for (const std::string& name : ours->names())
    EXPECT_EQ(largest_difference(ours->tensor(name), theirs->tensor(name)), 0.0) << name;
  const auto targets = [](const std::filesystem::path& path) {
    auto names = nlohmann::json::parse(std::ifstream(path / "adapter_config.json"))["target_modules"]
                     .get<std::vector<std::string>>();
    std::sort(names.begin(), names.end());
    return names;
  };
  EXPECT_EQ(targets(written.path()), targets(golden(folder)));
}

INSTANTIATE_TEST_SUITE_P(Golden, FamilyAdapter,
                         testing::Values("llama", "mistral", "qwen3", "phi3", "gemma2", "gemma3", "olmo2", "olmo3",
                                         "granite", "qwen2", "smollm3", "mixtral", "qwen3_moe", "gpt_oss",
                                         "mixtral_experts", "qwen3_moe_experts", "gpt_oss_experts", "gpt_oss_down",
                                         "olmoe", "granitemoe", "granitemoe_experts", "lfm2", "qwen2_moe",
                                         "qwen2_moe_experts", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_experts",
                                         "qwen3_next", "lfm2_moe", "lfm2_moe_experts", "ministral3", "exaone4",
                                         "seed_oss", "granite4"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lathe::nn
