// Adapters of every kind as Lathe writes them, after something was learnt. With LATHE_WRITTEN_ADAPTERS=FOLDER they stay
// there with their logits, for tests/golden/peft_adapter/check_written.py, which compares them with PEFT's.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <optional>

#include "core/random.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

struct Written {
  const char *name, *model;
  std::function<void(LoraConfig&)> change;
};

const std::vector<Written>& all_written() {
  static const std::vector<Written> all = {
      {"plain", "tiny_llama/untied", [](LoraConfig&) {}},
      {"rslora_patterns", "tiny_llama/untied",
       [](LoraConfig& config) {
         config.use_rslora = true;
         config.rank_pattern = {{"down_proj", 2}, {"layers.0.self_attn.q_proj", 7}};
         config.alpha_pattern = {{"up_proj", 3}};
       }},
      {"layers_pattern", "tiny_llama/untied",
       [](LoraConfig& config) {
         config.target_modules_regex.reset();
         config.target_modules = {"q_proj", "gate_proj"};
         config.layers_to_transform = {1};
         config.layers_pattern = {"layers"};
       }},
      {"dora", "tiny_qwen3/untied", [](LoraConfig& config) { config.use_dora = true; }},
      {"whole_modules", "tiny_qwen3/tied",
       [](LoraConfig& config) {
         config.modules_to_save = saved_modules({"lm_head", "embed_tokens"});
       }},
      {"gaussian", "tiny_llama/untied", [](LoraConfig& config) { config.init_lora_weights = "gaussian"; }},
      {"orthogonal", "tiny_llama/untied", [](LoraConfig& config) { config.init_lora_weights = "orthogonal"; }},
      {"pissa", "tiny_llama/untied", [](LoraConfig& config) { config.init_lora_weights = "pissa"; }},
      {"pissa_rslora_patterns", "tiny_llama/untied",
       [](LoraConfig& config) {
         config.init_lora_weights = "pissa_niter_4";
         config.use_rslora = true;
         config.rank_pattern = {{"v_proj", 2}};
         config.alpha_pattern = {{"up_proj", 3}};
       }},
      {"olora", "tiny_llama/untied", [](LoraConfig& config) { config.init_lora_weights = "olora"; }},
  };
  return all;
}

class WrittenAdapter : public testing::TestWithParam<size_t> {};

TEST_P(WrittenAdapter, LoadsAgainWithTheSameLogits) {
  const Written& written = all_written()[GetParam()];
  SCOPED_TRACE(written.name);
  LoraConfig config;
  config.r = 4;
  config.lora_alpha = 6;
  config.target_modules_regex = "all-linear";
  config.base_model_name_or_path = written.model;
  written.change(config);
  const std::vector<int32_t> ids = {5, 17, 60, 2, 44, 91, 7, 33, 12};
  const auto base_logits = logits_of(load(golden(written.model), DType::f32), {ids});
  Transformer model = load(golden(written.model), DType::f32);
  model.add_lora(config, 3);
  for (Parameter& parameter : model.trainable_parameters()) {
    RandomStream random(parameter.name.size(), RandomPurpose::test);
    for (float& value : parameter.master.span<float>()) value += 0.05f * random.normal();
    parameter.refresh();
  }
  const Tensor logits = logits_of(model, {ids});
  EXPECT_GT(largest_difference(logits, base_logits), 1e-2);

  std::optional<TemporaryFolder> temporary;
  std::filesystem::path folder;
  if (const char* kept = std::getenv("LATHE_WRITTEN_ADAPTERS")) {
    folder = std::filesystem::path(kept) / written.name;
    std::filesystem::create_directories(folder);
    write_safetensors(folder / "logits.safetensors", {{"logits", logits}});
    std::ofstream(folder / "input.json") << nlohmann::json{{"input_ids", ids}, {"model", written.model}};
  } else {
    folder = temporary.emplace().path();
  }
  write_peft_adapter(folder, model.adapter());
  Transformer again = load(golden(written.model), DType::f32);
  again.load_adapter(read_peft_adapter(folder));
  EXPECT_LT(largest_difference(logits_of(again, {ids}), logits), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Kinds, WrittenAdapter, testing::Range(size_t{0}, all_written().size()));

}  // namespace
}  // namespace lathe::nn
