// Adapters between Lathe and PEFT: the same logits, and every wrong adapter told.
#include <gtest/gtest.h>

#include <fstream>

#include "core/atomic_write.h"
#include "kernels/copy/copy.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

std::vector<int32_t> input_ids() {
  return golden_json("peft_adapter/input.json")["input_ids"].get<std::vector<int32_t>>();
}

Tensor expected_logits(const std::string& name) {
  static const auto file = SafetensorsFile::open(golden("peft_adapter/logits.safetensors"));
  return file->tensor(name);
}

Tensor logits_with(const std::filesystem::path& adapter) {
  Transformer model = load(golden("tiny_llama/untied"), DType::f32);
  model.load_adapter(read_peft_adapter(adapter));
  return logits_of(model, {input_ids()});
}

class PeftWrote : public testing::TestWithParam<const char*> {};

TEST_P(PeftWrote, GivesTheLogitsOfPeft) {
  EXPECT_LE(
      largest_difference(logits_with(golden(std::string("peft_adapter/") + GetParam())), expected_logits(GetParam())),
      1e-4);
  // The adapters do something: a wrong one would not pass as the base model.
  EXPECT_GT(largest_difference(expected_logits("base"), expected_logits(GetParam())), 1e-2);
}

TEST_P(PeftWrote, ComesBackFromDiskAsItWas) {
  Transformer model = load(golden("tiny_llama/untied"), DType::f32);
  model.load_adapter(read_peft_adapter(golden(std::string("peft_adapter/") + GetParam())));
  const TemporaryFolder folder;
  write_peft_adapter(folder.path(), model.adapter());
  EXPECT_EQ(largest_difference(logits_with(folder.path()), logits_of(model, {input_ids()})), 0.0);
}

INSTANTIATE_TEST_SUITE_P(Golden, PeftWrote,
                         testing::Values("plain", "rslora", "patterns", "regex", "all_linear", "layers_to_transform",
                                         "modules_to_save"));

// Configurations that choose modules in PEFT's subtler ways.
class PeftMatched : public testing::TestWithParam<const char*> {};

TEST_P(PeftMatched, GivesTheLogitsOfPeft) {
  const auto expected = SafetensorsFile::open(golden("peft_adapter/logits_matching.safetensors"))->tensor(GetParam());
  EXPECT_LE(largest_difference(logits_with(golden(std::string("peft_adapter/") + GetParam())), expected), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Golden, PeftMatched,
                         testing::Values("alpha_order", "lookbehind", "excluded", "excluded_regex", "layers_pattern"));

TEST(Adapter, KeysWithTheAdaptersNameAreRead) {
  const PeftAdapter adapter = read_peft_adapter(golden("peft_adapter/plain"));
  const TemporaryFolder folder;
  write_peft_adapter(folder.path(), adapter);
  NamedTensors tensors;
  for (const auto& [module, weights] : adapter.modules) {
    tensors.emplace_back("base_model.model." + module + ".lora_A.default.weight", weights.a);
    tensors.emplace_back("base_model.model." + module + ".lora_B.default.weight", weights.b);
  }
  write_safetensors(folder.path() / "adapter_model.safetensors", tensors);
  EXPECT_EQ(largest_difference(logits_with(folder.path()), logits_with(golden("peft_adapter/plain"))), 0.0);
}

// As PEFT writes one of a model that sees pictures, too.
TEST(Adapter, KeysOfATextModelWithinAnotherAreRead) {
  const PeftAdapter adapter = read_peft_adapter(golden("peft_adapter/plain"));
  const TemporaryFolder folder;
  write_peft_adapter(folder.path(), adapter);
  NamedTensors tensors;
  for (const auto& [module, weights] : adapter.modules) {
    const std::string within = "base_model.model.model.language_model." + module.substr(std::string("model.").size());
    tensors.emplace_back(within + ".lora_A.weight", weights.a);
    tensors.emplace_back(within + ".lora_B.weight", weights.b);
  }
  write_safetensors(folder.path() / "adapter_model.safetensors", tensors);
  EXPECT_EQ(largest_difference(logits_with(folder.path()), logits_with(golden("peft_adapter/plain"))), 0.0);
}

// Each ends at once, with the key's name.
TEST(Adapter, BrokenConfigurationsAreRefusedByName) {
  const TemporaryFolder folder;
  write_peft_adapter(folder.path(), read_peft_adapter(golden("peft_adapter/plain")));
  const auto path = folder.path() / "adapter_config.json";
  const nlohmann::json good = nlohmann::json::parse(std::ifstream(path));
  const auto refusal = [&](const std::string& config) {
    write_file_atomically(path, config);
    try {
      logits_with(folder.path());
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto with = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json config = good;
    config[key] = value;
    return config.dump();
  };
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_NE(refusal("{\"peft_type\": \"LORA\", \"modules_to_save\": " + deep + "}").find("nested"), std::string::npos);
  EXPECT_NE(refusal("{\"peft_type\": \"LORA\", \"target_modules\": " + deep + "}").find("nested"), std::string::npos);
  EXPECT_NE(refusal("{\"peft_type\": \"LORA\", \"lora_alpha\": 1e400}").find("out of range"), std::string::npos);
  EXPECT_NE(refusal(with("r", 8.9)).find("r: expected an integer from 1 to 65536, found 8.9"), std::string::npos);
  EXPECT_NE(refusal(with("r", 1e26)).find("r: expected an integer"), std::string::npos);
  EXPECT_NE(refusal(with("rank_pattern", {{"q_proj", 0}})).find("rank_pattern.q_proj"), std::string::npos);
  EXPECT_NE(refusal(with("target_modules", {1, 2})).find("target_modules"), std::string::npos);
  EXPECT_NE(refusal(with("rank_pattern", {{std::string(50'000, '('), 4}})).find("rank_pattern"), std::string::npos);
  // matches nothing, and says so at once
  EXPECT_EQ(refusal(with("rank_pattern", {{"(.*)*(.*)*(.*)*Z", 4}})), "accepted");
  const std::string slow = refusal(with("rank_pattern", {{"([a-z_.0-9]+)+[A-Z]", 4}}));
  EXPECT_NE(slow.find("rank_pattern: matching the pattern failed"), std::string::npos) << slow;
}

class Unsupported : public testing::TestWithParam<const char*> {};

TEST_P(Unsupported, IsAnErrorNotHalfAnAdapter) {
  EXPECT_THROW(logits_with(golden(std::string("peft_adapter/") + GetParam())), Error);
}

INSTANTIATE_TEST_SUITE_P(Golden, Unsupported, testing::Values("lm_head"));

// Writes the plain adapter with its modules and config changed, loads it, and returns the error.
std::string error_after(const std::function<void(PeftAdapter&)>& change) {
  PeftAdapter adapter = read_peft_adapter(golden("peft_adapter/plain"));
  change(adapter);
  const TemporaryFolder folder;
  write_peft_adapter(folder.path(), adapter);
  try {
    logits_with(folder.path());
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Adapter, ALinearThatTheModelLacksIsNamed) {
  const std::string error = error_after([](PeftAdapter& adapter) {
    auto node = adapter.modules.extract(adapter.modules.begin());
    node.key() = "model.layers.7.self_attn.q_proj";
    adapter.modules.insert(std::move(node));
  });
  EXPECT_NE(error, "no error");
}

TEST(Adapter, AWeightThatItsConfigPromisesIsMissed) {
  const std::string error = error_after([](PeftAdapter& adapter) { adapter.modules.erase(adapter.modules.begin()); });
  EXPECT_NE(error.find("there is no"), std::string::npos) << error;
}

TEST(Adapter, AnotherModelsShapeIsNamed) {
  const std::string error = error_after([](PeftAdapter& adapter) {
    Tensor& b = adapter.modules.begin()->second.b;
    b = Tensor::zeros({b.dim(0) + 1, b.dim(1)}, DType::f32);
  });
  EXPECT_NE(error.find("made for another model"), std::string::npos) << error;
}

TEST(Adapter, AKeyThatIsNoLoraWeightIsNamed) {
  const TemporaryFolder folder;
  const PeftAdapter adapter = read_peft_adapter(golden("peft_adapter/plain"));
  write_peft_adapter(folder.path(), adapter);
  NamedTensors tensors;
  for (const auto& [module, weights] : adapter.modules) {
    tensors.emplace_back("base_model.model." + module + ".lora_A.weight", weights.a);
    tensors.emplace_back("base_model.model." + module + ".lora_B.weight", weights.b);
  }
  tensors.emplace_back("base_model.model.model.norm.weight", Tensor::zeros({64}, DType::f32));
  write_safetensors(folder.path() / "adapter_model.safetensors", tensors);
  EXPECT_THROW(read_peft_adapter(folder.path()), FormatError);
}

TEST(Adapter, OptionsThatChangeTheArithmeticAreRefused) {
  const TemporaryFolder folder;
  write_peft_adapter(folder.path(), read_peft_adapter(golden("peft_adapter/plain")));
  const auto path = folder.path() / "adapter_config.json";
  const nlohmann::json good = nlohmann::json::parse(std::ifstream(path));
  const std::vector<std::pair<const char*, nlohmann::json>> changes = {
      {"use_dora", true},       {"init_lora_weights", "pissa"},
      {"lora_bias", true},      {"bias", "all"},
      {"peft_type", "IA3"},     {"modules_to_save", {"norm"}},
      {"fan_in_fan_out", true}, {"r", 0},
      {"r", "eight"},           {"rank_pattern", 3},
      {"lora_alpha", nullptr}};
  for (const auto& [key, value] : changes) {
    nlohmann::json config = good;
    config[key] = value;
    write_file_atomically(path, config.dump());
    if (std::string(key) == "lora_alpha") {  // null is the default
      EXPECT_EQ(read_peft_adapter(folder.path()).config.lora_alpha, 8);
    } else {
      EXPECT_THROW(read_peft_adapter(folder.path()), Error) << key << " " << value.dump();
    }
  }
  nlohmann::json config = good;
  config["a_field_of_next_year"] = 1;
  write_file_atomically(path, config.dump());
  std::vector<std::string> warnings;
  read_peft_adapter(folder.path(), &warnings);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("a_field_of_next_year"), std::string::npos);
}

TEST(Adapter, AnotherBaseAndPatternsWithoutEffectAreWarnedOf) {
  const ModelFiles base = open_model_files(golden("tiny_llama/untied")),
                   other = open_model_files(golden("tiny_llama/tied"));
  PeftAdapter adapter = read_peft_adapter(golden("peft_adapter/plain"));
  EXPECT_TRUE(adapter_warnings(other, adapter.config, {}).empty());  // PEFT's do not say what their base was
  set_base(adapter.config, base, {});
  const TemporaryFolder folder;
  write_peft_adapter(folder.path(), adapter);
  const LoraConfig config = read_peft_adapter(folder.path()).config;
  EXPECT_TRUE(adapter_warnings(base, config, {}).empty());
  const auto elsewhere = adapter_warnings(other, config, {});
  ASSERT_EQ(elsewhere.size(), 1u);
  EXPECT_NE(elsewhere[0].find("other weights"), std::string::npos) << elsewhere[0];
  const auto coded = adapter_warnings(base, config, Quantization{});
  ASSERT_EQ(coded.size(), 1u);
  EXPECT_NE(coded[0].find("here is beside nf4"), std::string::npos) << coded[0];

  LoraConfig unmatched = adapter.config;  // q_proj and v_proj
  unmatched.rank_pattern = {{"q_proj", 2}, {"down_proj", 3}};
  unmatched.alpha_pattern = {{"layers.7.*", 4}};
  unmatched.exclude_modules = {"k_proj"};
  const auto warnings = adapter_warnings(base, unmatched, {});
  ASSERT_EQ(warnings.size(), 3u);
  EXPECT_NE(warnings[0].find("rank_pattern: down_proj"), std::string::npos) << warnings[0];
  EXPECT_NE(warnings[1].find("alpha_pattern: layers.7.*"), std::string::npos) << warnings[1];
  EXPECT_NE(warnings[2].find("exclude_modules"), std::string::npos) << warnings[2];
}

TEST(Adapter, FreshLoraChangesNothingAndDependsOnItsSeed) {
  LoraConfig config;
  config.target_modules_regex = "all-linear";
  Transformer first = load(golden("tiny_llama/untied"), DType::f32),
              second = load(golden("tiny_llama/untied"), DType::f32);
  first.add_lora(config, 1);
  second.add_lora(config, 2);
  EXPECT_EQ(largest_difference(logits_of(first, {input_ids()}),
                               logits_of(load(golden("tiny_llama/untied"), DType::f32), {input_ids()})),
            0.0);
  const PeftAdapter a = first.adapter(), b = second.adapter();
  ASSERT_EQ(a.modules.size(), 14u);  // seven linears in each of two layers, without lm_head
  EXPECT_GT(largest_difference(a.modules.begin()->second.a, b.modules.begin()->second.a), 0.0);
  // kaiming_uniform(a = √5): within ±1/√in, and filling it.
  for (const auto& [name, weights] : a.modules) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(weights.a.dim(1)));
    double largest = 0;
    for (const float value : weights.a.span<float>()) largest = std::max(largest, std::abs(static_cast<double>(value)));
    EXPECT_LE(largest, bound) << name;
    EXPECT_GT(largest, 0.9 * bound) << name;
  }
}

TEST(Adapter, TargetsThatMatchNothingAreAnError) {
  Transformer model = load(golden("tiny_llama/untied"), DType::f32);
  LoraConfig config;
  config.target_modules = {"query"};
  EXPECT_THROW(model.add_lora(config, 1), ConfigError);
  config.target_modules_regex = "(";
  EXPECT_THROW(model.add_lora(config, 1), ConfigError);
}

}  // namespace
}  // namespace lathe::nn
