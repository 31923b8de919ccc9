// What is Qwen3.5-MoE's own: its config, and experts in two tensors a layer where others have them apart.
#include <gtest/gtest.h>

#include "nn/weights/safetensors.h"
#include "nn/weights/stacked_experts.h"
#include "tests/nn/changed_configs.h"

namespace lathe::nn {
namespace {

nlohmann::json moe_json() { return golden_json("tiny_qwen3_5_moe/text/config.json"); }

TEST(Qwen35Moe, WhatTheConfigLeavesOutIsAsInTransformers) {
  nlohmann::json json = moe_json();
  for (const char* key : {"num_experts", "num_experts_per_tok", "moe_intermediate_size",
                          "shared_expert_intermediate_size", "num_key_value_heads", "layer_types", "head_dim"})
    json.erase(key);
  json["rope_parameters"].erase("partial_rotary_factor");
  const ModelConfig config = config_of(json);
  EXPECT_EQ(config.experts.num_experts, 256);
  EXPECT_EQ(config.experts.num_experts_per_tok, 8);
  EXPECT_EQ(config.experts.intermediate_size, 512);
  EXPECT_EQ(config.experts.shared.intermediate_size, 512);
  EXPECT_TRUE(config.experts.shared.gated);
  EXPECT_TRUE(config.experts.norm_topk_prob);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.ropes[0].rotary_dim, 64) << "a quarter of 256";
  EXPECT_EQ(attending(config), (std::vector<bool>{false, false, false, true}));
}

TEST(Qwen35Moe, EveryLayerHasExpertsWhateverTheConfigSays) {
  nlohmann::json json = moe_json();
  json["mlp_only_layers"] = {0};
  json["decoder_sparse_step"] = 2;
  json["norm_topk_prob"] = false;
  json["intermediate_size"] = 999;
  const ModelConfig config = config_of(json);
  for (const LayerConfig& layer : config.layers) EXPECT_TRUE(layer.experts);
  EXPECT_TRUE(config.experts.norm_topk_prob);
  EXPECT_EQ(config.intermediate_size, 12);
}

TEST(Qwen35Moe, WhatNoMixtureHasIsNamed) {
  for (const auto& [key, value] : {std::pair("num_experts", 0),
                                   {"num_experts", 4096},
                                   {"num_experts_per_tok", 0},
                                   {"num_experts_per_tok", 7},
                                   {"moe_intermediate_size", 0},
                                   {"shared_expert_intermediate_size", 0},
                                   {"linear_num_value_heads", 3}}) {
    nlohmann::json json = moe_json();
    json[key] = value;
    EXPECT_NE(error_of(json).find(key), std::string::npos) << error_of(json);
  }
}

TEST(Qwen35Moe, ExpertsInTwoTensorsALayerAreRead) {
  const ModelFiles files = open_model_files(golden("tiny_qwen3_5_moe/tied"));
  const auto stored = SafetensorsFile::open(golden("tiny_qwen3_5_moe/tied/model.safetensors"));
  const Tensor gate_up = stored->tensor("model.layers.1.mlp.experts.gate_up_proj"),
               down = stored->tensor("model.layers.1.mlp.experts.down_proj");
  const std::string experts = "model.layers.1.mlp.experts.";
  const auto expect_same = [&](const std::string& name, const Tensor& expected) {
    const WeightInfo* info = files.weights->find(experts + name);
    ASSERT_NE(info, nullptr) << name;
    const Tensor found = read_weight(*files.weights, *info, DType::f32);
    ASSERT_EQ(found.shape(), expected.shape()) << name;
    EXPECT_EQ(std::memcmp(found.raw(), expected.raw(), static_cast<size_t>(expected.nbytes())), 0) << name;
  };
  for (int64_t e = 0; e < 6; ++e) {
    const std::string number = std::to_string(e);
    expect_same(number + ".gate_proj.weight", gate_up.select(0, e).slice(0, 0, 12));
    expect_same(number + ".up_proj.weight", gate_up.select(0, e).slice(0, 12, 24));
    expect_same(number + ".down_proj.weight", down.select(0, e));
  }
  EXPECT_EQ(files.weights->find(experts + "gate_up_proj"), nullptr);
}

// A merged model, a fine-tuned one and one from GGUF have them apart, as what transformers writes.
TEST(Qwen35Moe, ExpertsInTwoTensorsALayerAreWrittenApart) {
  const ModelFiles files = open_model_files(golden("tiny_qwen3_5_moe/tied"));
  const auto written = directory_weights(files);
  EXPECT_NE(written->find("model.layers.0.mlp.experts.5.down_proj.weight"), nullptr);
  EXPECT_EQ(written->find("model.layers.0.mlp.experts.down_proj"), nullptr);
}

TEST(Qwen35Moe, AGgufFileSaysItsMixture) {
  const std::string model = "tiny_qwen3_5_moe/text";
  const ModelConfig config = config_of_gguf(model, {}), expected = open_model_files(golden(model)).config;
  EXPECT_EQ(config.family, "qwen3_5_moe_text");
  EXPECT_EQ(config.experts.num_experts, expected.experts.num_experts);
  EXPECT_EQ(config.experts.num_experts_per_tok, expected.experts.num_experts_per_tok);
  EXPECT_EQ(config.experts.intermediate_size, expected.experts.intermediate_size);
  EXPECT_EQ(config.experts.shared.intermediate_size, expected.experts.shared.intermediate_size);
  EXPECT_TRUE(config.experts.norm_topk_prob);
  EXPECT_EQ(attending(config), attending(expected));
  for (const char* key : {"qwen35moe.expert_count", "qwen35moe.expert_used_count",
                          "qwen35moe.expert_feed_forward_length", "qwen35moe.expert_shared_feed_forward_length"})
    EXPECT_THROW(config_of_gguf(model, {{key, std::string()}}), FormatError) << key;
}

}  // namespace
}  // namespace lathe::nn
