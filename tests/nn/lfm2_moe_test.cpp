// What is LFM2-MoE's own: its config, and a bias that turns the choice of experts and never trains.
#include <gtest/gtest.h>

#include "nn/convert/hf_model.h"
#include "nn/layer_layout.h"
#include "tests/nn/changed_configs.h"

namespace lathe::nn {
namespace {

nlohmann::json lfm2_moe_json() { return golden_json("tiny_lfm2_moe/biased/config.json"); }

std::vector<bool> layers_with_experts(const ModelConfig& config) {
  std::vector<bool> experts;
  for (const LayerConfig& layer : config.layers) experts.push_back(layer.experts);
  return experts;
}

TEST(Lfm2Moe, WhatTheConfigLeavesOutIsAsInTransformers) {
  nlohmann::json json = lfm2_moe_json();
  for (const char* key :
       {"num_experts", "num_experts_per_tok", "moe_intermediate_size", "num_dense_layers", "norm_topk_prob",
        "use_expert_bias", "routed_scaling_factor", "intermediate_size", "tie_word_embeddings"})
    json.erase(key);
  const ModelConfig config = config_of(json);
  EXPECT_EQ(config.experts.num_experts, 32);
  EXPECT_EQ(config.experts.num_experts_per_tok, 4);
  EXPECT_EQ(config.experts.intermediate_size, 1792);
  EXPECT_EQ(config.intermediate_size, 7168);
  EXPECT_EQ(layers_with_experts(config), (std::vector<bool>{false, false, true, true}));
  EXPECT_TRUE(config.experts.norm_topk_prob);
  EXPECT_TRUE(config.experts.choice_bias);
  EXPECT_EQ(config.experts.routed_scale, 1.0);
  EXPECT_TRUE(config.tie_word_embeddings);
}

TEST(Lfm2Moe, TheConfigSaysWhatItsRouterDoes) {
  const ModelConfig plain = config_of(golden_json("tiny_lfm2_moe/plain/config.json"));
  EXPECT_TRUE(plain.experts.sigmoids);
  EXPECT_FALSE(plain.experts.choice_bias);
  EXPECT_FALSE(plain.experts.norm_topk_prob);
  EXPECT_EQ(plain.experts.routed_scale, 1.5);
  EXPECT_EQ(layers_with_experts(plain), (std::vector<bool>{false, false, true}));
  for (const auto& [key, value] : std::vector<std::pair<const char*, nlohmann::json>>{{"routed_scaling_factor", 0},
                                                                                      {"routed_scaling_factor", 1e9},
                                                                                      {"num_experts_per_tok", 7},
                                                                                      {"moe_intermediate_size", 0}}) {
    nlohmann::json json = lfm2_moe_json();
    json[key] = value;
    EXPECT_NE(error_of(json).find(key), std::string::npos) << error_of(json);
  }
}

TEST(Lfm2Moe, AGgufFileSaysItsFirstLayersAndItsRouter) {
  const std::string model = "tiny_lfm2_moe/biased";
  const ModelConfig config = config_of_gguf(model, {});
  EXPECT_EQ(layers_with_experts(config), (std::vector<bool>{false, true, true, true}));
  EXPECT_EQ(attending(config), (std::vector<bool>{false, true, false, true}));
  EXPECT_EQ(config.experts.intermediate_size, 12);
  EXPECT_EQ(config.intermediate_size, 48);
  EXPECT_TRUE(config.experts.choice_bias);
  EXPECT_EQ(layers_with_experts(config_of_gguf(model, {{"lfm2moe.leading_dense_block_count", int64_t{2}}})),
            (std::vector<bool>{false, false, true, true}));
  EXPECT_THROW(config_of_gguf(model, {{"lfm2moe.expert_gating_func", int64_t{1}}}), ConfigError);
  EXPECT_THROW(config_of_gguf(model, {{"lfm2moe.attention.sliding_window", int64_t{8}}}), ConfigError);
}

TEST(Lfm2Moe, TheBiasIsKeptInF32AndIsNoParameter) {
  Transformer model = load(golden("tiny_lfm2_moe/biased"), DType::bf16, WeightMode::trainable);
  for (const Parameter& parameter : model.trainable_parameters())
    EXPECT_FALSE(parameter.name.ends_with("expert_bias")) << parameter.name;
  const auto constants = model.constants();
  ASSERT_EQ(constants.size(), 3u);
  EXPECT_EQ(constants[0].first, "model.layers.1.feed_forward.expert_bias");
  for (const auto& [name, bias] : constants) EXPECT_EQ(bias.dtype(), DType::f32) << name;
  EXPECT_TRUE(load(golden("tiny_lfm2_moe/plain"), DType::bf16, WeightMode::trainable).constants().empty());
}

TEST(Lfm2Moe, TheBiasIsWrittenInF32) {
  const ModelFiles files = open_model_files(golden("tiny_lfm2_moe/biased"));
  int biases = 0;
  for (const auto& [weight, dtype] : hf_weights_of(files, DType::bf16)) {
    const bool bias = weight.name.ends_with("expert_bias");
    biases += bias;
    EXPECT_EQ(dtype, bias ? DType::f32 : DType::bf16) << weight.name;
  }
  EXPECT_EQ(biases, 3);
}

// Weights add up to 1 whatever the bias is, but the bias says whose they are.
TEST(Lfm2Moe, TheBiasTurnsTheChoiceAlone) {
  const ModelFiles files = open_model_files(golden("tiny_lfm2_moe/biased"));
  ModelConfig without = files.config;
  without.experts.choice_bias = false;
  class WithoutBias final : public WeightSource {
   public:
    explicit WithoutBias(const WeightSource& source) : source_(source) {
      for (const WeightInfo& info : source.weights())
        if (!info.name.ends_with("expert_bias")) infos_.push_back(info);
    }
    const std::vector<WeightInfo>& weights() const override { return infos_; }
    const WeightInfo* find(std::string_view name) const override { return source_.find(name); }
    void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
      source_.read_rows(name, first, count, out);
    }

   private:
    const WeightSource& source_;
    std::vector<WeightInfo> infos_;
  };
  const Transformer biased(files.config, *files.weights, {}), plain(without, WithoutBias(*files.weights), {});
  EXPECT_GT(largest_difference(logits_of(biased, {{1, 2, 3, 4, 5}}), logits_of(plain, {{1, 2, 3, 4, 5}})), 1e-2);
}

}  // namespace
}  // namespace lathe::nn
