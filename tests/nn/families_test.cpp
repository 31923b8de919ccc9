// What a family makes of a config.json and of a GGUF file.
#include "nn/families/family.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/atomic_write.h"
#include "kernels/copy/copy.h"
#include "nn/layer_layout.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/changed_configs.h"

namespace lathe::nn {
namespace {

std::string error_of_text(const std::string& text) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "config.json", text);
  try {
    read_hf_config(folder.path());
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// The golden config with one more key, which counts before the file's own, under its last.
std::string with_member(const std::string& member) {
  const std::string text = golden_json("tiny_llama31/config.json").dump();
  return text.substr(0, text.size() - 1) + ", " + member + "}";
}

std::vector<int64_t> windows_of(const ModelConfig& config) {
  std::vector<int64_t> windows;
  for (const LayerConfig& layer : config.layers) windows.push_back(layer.sliding_window);
  return windows;
}

class EveryFamily : public testing::TestWithParam<const char*> {};

TEST_P(EveryFamily, CountsTheParametersThatAreInTheFile) {
  const ModelFiles files = open_model_files(golden(GetParam()));
  int64_t elements = 0;
  for (const WeightInfo& weight : files.weights->weights()) elements += weight.shape.numel();
  EXPECT_EQ(files.config.parameter_count(), elements);
}

// The order of an adapter's linears, by which its random numbers are keyed, is the layout's.
TEST_P(EveryFamily, AdaptersFollowTheLayout) {
  Transformer model = load(golden(GetParam()), DType::f32);
  LoraConfig config;
  config.target_modules_regex = "all-linear";
  model.add_lora(config, 1);
  const std::vector<Parameter> parameters = model.trainable_parameters();
  size_t next = 0;
  for (int64_t i = 0; i < model.config().num_hidden_layers(); ++i)
    for (const LinearShape& linear : layer_layout(model.config(), i).linears()) {
      ASSERT_LT(next + 1, parameters.size());
      const Parameter &a = parameters[next++], &b = parameters[next++];
      EXPECT_EQ(a.name, "base_model.model." + layer_prefix(i) + linear.name + ".lora_A.weight");
      EXPECT_EQ(a.master.shape(), (Shape{config.r, linear.in}));
      EXPECT_EQ(b.master.shape(), (Shape{linear.out, config.r}));
    }
  EXPECT_EQ(next, parameters.size());
}

INSTANTIATE_TEST_SUITE_P(Golden, EveryFamily, testing::ValuesIn(tiny_models));

// But for those of Llama 3.1, Gemma 2, Qwen3-Next, Qwen3.5 and Granite 4.0 with Mamba-2, which say something in another
// way: see below, qwen3_5_test.cpp and granite_hybrid_test.cpp.
TEST(Families, AGgufFileGivesTheBitsOfTheDirectory) {
  size_t compared = 0;
  for (const std::string folder : tiny_models) {
    if (!has_gguf(folder) || folder == "tiny_llama31" || folder == "tiny_gemma2" ||
        folder.starts_with("tiny_qwen3_5") || folder.starts_with("tiny_qwen3_next"))
      continue;
    if (folder == "tiny_granite4/hybrid" || folder == "tiny_granite4/experts") continue;
    const auto ids = golden_json(folder + "/expected.json")["input_ids"].get<std::vector<std::vector<int32_t>>>();
    const Tensor expected = logits_of(load(golden(folder), DType::f32), ids);
    EXPECT_EQ(largest_difference(logits_of(load(golden(folder + "/model.gguf"), DType::f32), ids), expected), 0.0)
        << folder;
    ++compared;
  }
  EXPECT_GE(compared, 13u);
}

TEST(Qwen3, AnAdapterHasTheLogitsAndGradientsOfPeft) {
  const auto expected = SafetensorsFile::open(golden("tiny_qwen3/adapter/expected.safetensors"));
  const nlohmann::json json = golden_json("tiny_qwen3/untied/expected.json");
  const auto ids = json["input_ids"].get<std::vector<std::vector<int32_t>>>();
  Transformer model = load(golden("tiny_qwen3/untied"), DType::f32);
  model.load_adapter(read_peft_adapter(golden("tiny_qwen3/adapter")));
  const Tensor logits = logits_of(model, ids);
  int64_t row = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto length = static_cast<int64_t>(ids[i].size());
    EXPECT_LE(largest_difference(kernels::cast(logits.slice(0, row, row + length), DType::f32),
                                 expected->tensor("logits." + std::to_string(i))),
              1e-4);
    row += length;
  }
  backward_through(model, ids, json["labels"].get<std::vector<std::vector<int32_t>>>(),
                   json["num_labels"].get<int64_t>());
  size_t compared = 0;
  for (const Parameter& parameter : model.trainable_parameters()) {
    const Tensor wanted = expected->tensor("grad." + parameter.name);
    EXPECT_LE(largest_difference(parameter.leaf.grad(), wanted), 1e-4 * norm(wanted)) << parameter.name;
    ++compared;
  }
  EXPECT_EQ(compared, expected->names().size() - ids.size());
}

TEST(Qwen3, WindowsAreTheConfigs) {
  nlohmann::json json = golden_json("tiny_qwen3/options/config.json");
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{0, 8}));
  json.erase("layer_types");  // then from max_window_layers on
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{0, 8}));
  json["max_window_layers"] = 0;
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 8}));
  json.erase("max_window_layers");  // 28
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{0, 0}));
  json["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 0}));
  json["use_sliding_window"] = false;
  EXPECT_NE(error_of(json).find("use_sliding_window"), std::string::npos) << error_of(json);
  json["layer_types"] = {"full_attention", "chunked_attention"};
  EXPECT_NE(error_of(json).find("chunked_attention"), std::string::npos) << error_of(json);
  json.erase("layer_types");
  json["max_window_layers"] = 0;
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{0, 0}));
}

TEST(Qwen3, WhatTheConfigLeavesOutIsAsInTransformers) {
  nlohmann::json json = golden_json("tiny_qwen3/untied/config.json");
  for (const char* key : {"num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "hidden_act",
                          "attention_bias", "tie_word_embeddings", "rope_parameters"})
    json.erase(key);
  json["num_attention_heads"] = 64;
  const ModelConfig config = config_of(json);
  EXPECT_EQ(config.num_key_value_heads, 32);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.max_position_embeddings, 32768);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.ropes[0].theta, 10000.0);
  EXPECT_EQ(config.activation, Activation::silu);
  EXPECT_EQ(config.attention_bias, AttentionBias::none);
  EXPECT_FALSE(config.tie_word_embeddings);
  json["num_key_value_heads"] = nullptr;  // as many as heads
  EXPECT_EQ(config_of(json).num_key_value_heads, 64);
}

TEST(Qwen2, HasBiasesOfQKAndVAlone) {
  nlohmann::json json = golden_json("tiny_qwen2/windows/config.json");
  EXPECT_EQ(config_of(json).attention_bias, AttentionBias::qkv);
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{0, 8}));
  json["use_sliding_window"] = false;
  json.erase("layer_types");
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{0, 0}));
}

TEST(Mistral, TheWindowIsThatOfEveryLayerAndNullIsNone) {
  nlohmann::json json = golden_json("tiny_mistral/window/config.json");
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 8}));
  json["sliding_window"] = nullptr;
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{0, 0}));
  json.erase("sliding_window");
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{4096, 4096}));
  EXPECT_EQ(config_of(golden_json("tiny_mistral/nemo/config.json")).head_dim, 16);
}

TEST(Gemma2, EveryOtherLayerSlidesAndBothCapsAreTheConfigs) {
  nlohmann::json json = golden_json("tiny_gemma2/config.json");
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 0, 8}));
  EXPECT_EQ(config_of(json).attn_logit_softcapping, 2.0);
  EXPECT_EQ(config_of(json).final_logit_softcapping, 3.0);
  json.erase("layer_types");
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 0, 8}));
  json["attn_logit_softcapping"] = nullptr;
  EXPECT_EQ(config_of(json).attn_logit_softcapping, 0.0);
  json.erase("attn_logit_softcapping");
  EXPECT_EQ(config_of(json).attn_logit_softcapping, 50.0);
  json["final_logit_softcapping"] = -1.0;
  EXPECT_NE(error_of(json).find("final_logit_softcapping"), std::string::npos) << error_of(json);
}

// A GGUF file does not say by what the scores are divided: by the root of the head's size, but for 27B.
TEST(Gemma2, AGgufFileGivesTheBitsOfTheDirectory) {
  const auto ids = golden_json("tiny_gemma2/expected.json")["input_ids"].get<std::vector<std::vector<int32_t>>>();
  ModelFiles files = open_model_files(golden("tiny_gemma2/model.gguf"));
  EXPECT_EQ(files.config.query_pre_attn_scalar, 0.0);
  files.config.query_pre_attn_scalar = 8;
  EXPECT_EQ(largest_difference(logits_of(Transformer(files.config, *files.weights, {}), ids),
                               logits_of(load(golden("tiny_gemma2"), DType::f32), ids)),
            0.0);
}

TEST(Gemma3, TheOldConfigMeansTheSame) {
  nlohmann::json json = golden_json("tiny_gemma3/config.json");
  const ModelConfig now = config_of(json);
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 8, 8, 8, 8, 0}));
  EXPECT_EQ(now.embedding_scale, 4.0);
  json.erase("layer_types");
  json.erase("rope_parameters");
  json["sliding_window_pattern"] = 2;
  json["rope_theta"] = 500000.0;
  json["rope_local_base_freq"] = 20000.0;
  json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 0, 8, 0, 8, 0}));
  const ModelConfig then = config_of(json);
  EXPECT_EQ(then.ropes[0].theta, 500000.0);
  EXPECT_EQ(then.ropes[0].scaling.factor, 8.0);
  EXPECT_EQ(then.ropes[1].theta, 20000.0);
  EXPECT_EQ(then.ropes[1].scaling.kind, RopeScalingKind::none);
  EXPECT_EQ(then.layers[0].rope, 1);
  EXPECT_EQ(then.layers[1].rope, 0);
}

TEST(Gemma3, WhatIsNotComputedIsNamed) {
  const nlohmann::json json = golden_json("tiny_gemma3/config.json");
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, nlohmann::json>>{{"attn_logit_softcapping", 30.0},
                                                           {"hidden_activation", "gelu"},
                                                           {"use_bidirectional_attention", true},
                                                           {"layer_types", {"full_attention"}}}) {
    nlohmann::json changed = json;
    changed[key] = value;
    EXPECT_NE(error_of(changed).find(key), std::string::npos) << error_of(changed);
  }
}

TEST(Gemma3, TrainedNormsAreStoredLessOne) {
  Transformer model = load(golden("tiny_gemma3"), DType::f32, WeightMode::trainable);
  const auto file = SafetensorsFile::open(golden("tiny_gemma3/model.safetensors"));
  size_t norms = 0;
  for (const Parameter& parameter : model.trainable_parameters()) {
    EXPECT_LE(largest_difference(parameter.stored(), file->tensor(parameter.name)), 1.2e-7) << parameter.name;
    norms += parameter.stored_offset == 1 ? 1 : 0;
  }
  EXPECT_EQ(norms, 6u * 6 + 1);
}

TEST(Lfm2, LayersAttendAsTheConfigListsThemByEitherOfItsWays) {
  nlohmann::json json = golden_json("tiny_lfm2/plain/config.json");
  EXPECT_EQ(attending(config_of(json)), (std::vector<bool>{false, true, false, false}));
  json["layer_types"] = {"conv", "conv"};
  EXPECT_NE(error_of(json).find("layer_types"), std::string::npos) << error_of(json);
  json["layer_types"] = {"conv", "conv", "sliding_attention", "conv"};
  EXPECT_NE(error_of(json).find("sliding_attention"), std::string::npos) << error_of(json);
  json.erase("layer_types");
  json["full_attn_idxs"] = {0, 3};
  EXPECT_EQ(attending(config_of(json)), (std::vector<bool>{true, false, false, true}));
  json.erase("full_attn_idxs");
  EXPECT_EQ(attending(config_of(json)), (std::vector<bool>{true, true, true, true}));
}

TEST(Lfm2, FeedForwardBlocksAreAsWideAsTransformersMakesThem) {
  nlohmann::json json = golden_json("tiny_lfm2/plain/config.json");
  EXPECT_EQ(config_of(json).intermediate_size, 48) << "two thirds of 60, and multiples of 16";
  json["block_ffn_dim_multiplier"] = 1.3;
  EXPECT_EQ(config_of(json).intermediate_size, 64) << "of 52";
  json["block_ff_dim"] = 36;  // counts where both are there
  EXPECT_EQ(config_of(json).intermediate_size, 32) << "of 31";
  json["block_ffn_dim_multiplier"] = nullptr;
  EXPECT_EQ(config_of(json).intermediate_size, 24) << "as it is";
  json["block_auto_adjust_ff_dim"] = false;
  EXPECT_EQ(config_of(json).intermediate_size, 36);
  json["block_auto_adjust_ff_dim"] = true;
  json["block_ffn_dim_multiplier"] = 1e12;
  EXPECT_NE(error_of(json).find("block_ffn_dim_multiplier"), std::string::npos) << error_of(json);
  json["block_ffn_dim_multiplier"] = 1.0;
  json["block_multiple_of"] = 0;
  EXPECT_NE(error_of(json).find("block_multiple_of"), std::string::npos) << error_of(json);
}

TEST(Lfm2, WhatTheConfigLeavesOutIsAsInTransformers) {
  nlohmann::json json = golden_json("tiny_lfm2/plain/config.json");
  for (const char* key : {"conv_L_cache", "conv_bias", "norm_eps", "rope_parameters", "tie_word_embeddings"})
    json.erase(key);
  const ModelConfig config = config_of(json);
  EXPECT_EQ(config.short_conv.taps, 3);
  EXPECT_FALSE(config.short_conv.bias);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.ropes[0].theta, 1000000.0);
  EXPECT_TRUE(config.tie_word_embeddings);
  json["tie_embedding"] = false;  // the word of the first files
  EXPECT_FALSE(config_of(json).tie_word_embeddings);
  json["conv_L_cache"] = 9;
  EXPECT_NE(error_of(json).find("taps"), std::string::npos) << error_of(json);
}

TEST(Lfm2, AGgufFileSaysWhichLayersAttendByTheirHeads) {
  const auto attend = [](std::vector<int64_t> heads) {
    return attending(config_of_gguf("tiny_lfm2/plain", {{"lfm2.attention.head_count_kv", std::move(heads)}}));
  };
  EXPECT_EQ(attend({0, 1, 0, 0}), (std::vector<bool>{false, true, false, false}));
  for (const std::vector<int64_t>& heads : std::vector<std::vector<int64_t>>{{0, 1, 0}, {0, 1, 2, 0}, {0, 1, -1, 0}})
    EXPECT_THROW(attend(heads), Error);
  EXPECT_THROW(config_of_gguf("tiny_lfm2/plain", {{"lfm2.attention.sliding_window", int64_t{8}}}), ConfigError);
}

TEST(Olmo3, ThreeOfFourLayersSlideAndNothingStretchesTheirAngles) {
  nlohmann::json json = golden_json("tiny_olmo3/config.json");
  const ModelConfig now = config_of(json);
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 8, 8, 0}));
  // The config of transformers before 5, which says layer_types or leaves them out.
  json.erase("layer_types");
  json["rope_theta"] = 10000.0;
  json["rope_scaling"] = json["rope_parameters"]["full_attention"];
  json.erase("rope_parameters");
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 8, 8, 0}));
  for (const ModelConfig& config : {now, config_of(json)}) {
    EXPECT_EQ(config.ropes[0].scaling.kind, RopeScalingKind::yarn);
    EXPECT_EQ(config.ropes[0].scaling.factor, 4.0);
    EXPECT_EQ(config.ropes[1].scaling.kind, RopeScalingKind::none);
    EXPECT_EQ(config.ropes[1].theta, 10000.0);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(config.layers[i].rope, i == 3 ? 0 : 1);
  }
  json.erase("rope_theta");
  json.erase("rope_scaling");
  json.erase("sliding_window");
  EXPECT_EQ(config_of(json).ropes[0].theta, 500000.0);
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{4096, 4096, 4096, 0}));
  json["layer_types"] = {"full_attention"};
  EXPECT_NE(error_of(json).find("layer_types"), std::string::npos) << error_of(json);
}

TEST(Olmo3, AGgufFileSaysItsPatternAndItsBase) {
  const std::string pattern = "olmo2.attention.sliding_window_pattern", window = "olmo2.attention.sliding_window";
  const auto changed = [](const std::map<std::string, GgufValue>& values) {
    return config_of_gguf("tiny_olmo3", values);
  };
  using Windows = std::vector<int64_t>;
  EXPECT_EQ(windows_of(changed({})), (Windows{8, 8, 8, 0}));
  EXPECT_EQ(windows_of(changed({{pattern, std::string()}})), (Windows{8, 8, 8, 0}));
  EXPECT_EQ(windows_of(changed({{pattern, int64_t{2}}})), (Windows{8, 0, 8, 0}));
  EXPECT_EQ(windows_of(changed({{pattern, std::vector<bool>{false, true, false, true}}})), (Windows{0, 8, 0, 8}));
  EXPECT_THROW(changed({{pattern, std::vector<bool>{true}}}), ConfigError);
  EXPECT_THROW(changed({{pattern, int64_t{0}}}), FormatError);
  EXPECT_EQ(changed({}).ropes[1].theta, 10000.0);
  EXPECT_EQ(changed({{"olmo2.rope.freq_base_swa", 500.0}}).ropes[1].theta, 500.0);
  const ModelConfig without = changed({{window, std::string()}, {pattern, std::string()}});  // an OLMo 2
  EXPECT_EQ(without.family, "olmo2");
  EXPECT_EQ(windows_of(without), (Windows{0, 0, 0, 0}));
}

TEST(Olmoe, WhatTheConfigLeavesOutIsAsInTransformers) {
  nlohmann::json json = golden_json("tiny_olmoe/config.json");
  for (const char* key : {"num_experts", "num_experts_per_tok", "norm_topk_prob", "max_position_embeddings",
                          "rms_norm_eps", "num_key_value_heads", "clip_qkv"})
    json.erase(key);
  const ModelConfig silent = config_of(json);
  EXPECT_EQ(silent.experts.num_experts, 64);
  EXPECT_EQ(silent.experts.num_experts_per_tok, 8);
  EXPECT_EQ(silent.experts.intermediate_size, 12);
  EXPECT_FALSE(silent.experts.norm_topk_prob);
  EXPECT_EQ(silent.max_position_embeddings, 4096);
  EXPECT_EQ(silent.rms_norm_eps, 1e-5);
  EXPECT_EQ(silent.num_key_value_heads, 2);
  json["num_local_experts"] = 16;
  EXPECT_EQ(config_of(json).experts.num_experts, 16);
  json["norm_topk_prob"] = true;
  EXPECT_TRUE(config_of(json).experts.norm_topk_prob);
  json["clip_qkv"] = 8.0;
  EXPECT_NE(error_of(json).find("clip_qkv"), std::string::npos) << error_of(json);
}

TEST(Qwen2Moe, WhatTheConfigLeavesOutIsAsInTransformers) {
  using Windows = std::vector<int64_t>;
  nlohmann::json json = golden_json("tiny_qwen2_moe/some/config.json");
  for (const char* key : {"num_experts", "num_experts_per_tok", "norm_topk_prob", "max_position_embeddings",
                          "moe_intermediate_size", "shared_expert_intermediate_size", "qkv_bias", "decoder_sparse_step",
                          "mlp_only_layers", "layer_types", "sliding_window", "max_window_layers"})
    json.erase(key);
  const ModelConfig silent = config_of(json);
  EXPECT_EQ(silent.experts.num_experts, 60);
  EXPECT_EQ(silent.experts.num_experts_per_tok, 4);
  EXPECT_EQ(silent.experts.intermediate_size, 1408);
  EXPECT_EQ(silent.experts.shared.intermediate_size, 5632);
  EXPECT_TRUE(silent.experts.shared.gated);
  EXPECT_FALSE(silent.experts.norm_topk_prob);
  EXPECT_EQ(silent.max_position_embeddings, 32768);
  EXPECT_EQ(silent.attention_bias, AttentionBias::qkv);
  const auto sparse = [&] {
    std::vector<bool> experts;
    for (const LayerConfig& layer : config_of(json).layers) experts.push_back(layer.experts);
    return experts;
  };
  EXPECT_EQ(sparse(), (std::vector<bool>{true, true, true}));
  json["decoder_sparse_step"] = 2;
  EXPECT_EQ(sparse(), (std::vector<bool>{false, true, false}));
  json["use_sliding_window"] = true;  // transformers' Qwen2MoeConfig: every other layer
  EXPECT_EQ(windows_of(config_of(json)), (Windows{4096, 0, 4096}));
  json["max_window_layers"] = 2;
  EXPECT_EQ(windows_of(config_of(json)), (Windows{4096, 0, 0}));
  json["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
  EXPECT_EQ(windows_of(config_of(json)), (Windows{0, 4096, 0}));
  json["qkv_bias"] = false;
  EXPECT_EQ(config_of(json).attention_bias, AttentionBias::none);
  json["shared_expert_intermediate_size"] = 0;
  EXPECT_NE(error_of(json).find("shared_expert_intermediate_size"), std::string::npos) << error_of(json);
}

TEST(Qwen2Moe, AGgufFileFromBeforeItsWidthsHadKeysIsAsLlamaCppTakesIt) {
  const ExpertsConfig written = config_of_gguf("tiny_qwen2_moe/all", {}).experts;
  EXPECT_EQ(written.intermediate_size, 12);
  EXPECT_EQ(written.shared.intermediate_size, 20);
  EXPECT_FALSE(written.norm_topk_prob);
  const ExpertsConfig older =
      config_of_gguf("tiny_qwen2_moe/all", {{"qwen2moe.expert_feed_forward_length", std::string()},
                                            {"qwen2moe.expert_shared_feed_forward_length", std::string()}})
          .experts;
  EXPECT_EQ(older.intermediate_size, 40 / 2);
  EXPECT_EQ(older.shared.intermediate_size, 40);
}

TEST(Gemma3, AGgufFileMaySayWhatOlderOnesLeaveOut) {
  const ModelConfig older = config_of_gguf("tiny_gemma3", {}),
                    newer = config_of_gguf("tiny_gemma3", {{"gemma3.rope.freq_base_swa", 20000.0},
                                                           {"gemma3.attention.sliding_window_pattern", int64_t{3}},
                                                           {"gemma3.final_logit_softcapping", 30.0}});
  using Windows = std::vector<int64_t>;
  EXPECT_EQ(windows_of(older), (Windows{8, 8, 8, 8, 8, 0}));
  EXPECT_EQ(older.ropes[1].theta, 10000.0);
  EXPECT_EQ(windows_of(newer), (Windows{8, 8, 0, 8, 8, 0}));
  EXPECT_EQ(newer.ropes[1].theta, 20000.0);
  EXPECT_EQ(newer.final_logit_softcapping, 30.0);
}

TEST(SmolLm3, SomeLayersDoNotTurn) {
  const auto ropes_of = [](const nlohmann::json& json) {
    std::vector<int64_t> ropes;
    for (const LayerConfig& layer : config_of(json).layers) ropes.push_back(layer.rope);
    return ropes;
  };
  nlohmann::json json = golden_json("tiny_smollm3/config.json");
  EXPECT_EQ(ropes_of(json), (std::vector<int64_t>{0, 0, 0, no_rope}));
  json["no_rope_layers"] = {0, 1, 1, 1};
  EXPECT_EQ(ropes_of(json), (std::vector<int64_t>{no_rope, 0, 0, 0}));
  json.erase("no_rope_layers");
  json["no_rope_layer_interval"] = 2;
  EXPECT_EQ(ropes_of(json), (std::vector<int64_t>{0, no_rope, 0, no_rope}));
  json["no_rope_layers"] = {0, 1};
  EXPECT_NE(error_of(json).find("no_rope_layers"), std::string::npos) << error_of(json);
}

TEST(GptOss, AConfigMayLeaveOutWhatAllHave) {
  nlohmann::json json = golden_json("tiny_gpt_oss/dense/config.json");
  EXPECT_EQ(windows_of(config_of(json)), (std::vector<int64_t>{8, 0}));
  EXPECT_FALSE(config_of(json).ropes[0].scaling.truncate);
  // As openai/gpt-oss-20b says it.
  json["rope_theta"] = json["rope_parameters"]["rope_theta"];
  json["rope_scaling"] = json["rope_parameters"];
  json.erase("rope_parameters");
  EXPECT_EQ(config_of(json).ropes[0].scaling.factor, 4.0);
  for (const char* key : {"rope_theta", "rope_scaling", "layer_types", "sliding_window", "attention_bias",
                          "swiglu_alpha", "swiglu_limit", "rms_norm_eps"})
    json.erase(key);
  const ModelConfig config = config_of(json);
  EXPECT_EQ(windows_of(config), (std::vector<int64_t>{128, 0}));
  EXPECT_EQ(config.attention_bias, AttentionBias::qkvo);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.ropes[0].theta, 150000.0);
  EXPECT_EQ(config.ropes[0].scaling.kind, RopeScalingKind::yarn);
  EXPECT_EQ(config.ropes[0].scaling.factor, 32.0);
  EXPECT_EQ(config.ropes[0].scaling.original_max_position_embeddings, 4096);
  EXPECT_FALSE(config.ropes[0].scaling.truncate);
}

TEST(GptOss, AnotherActivationIsRefusedByKey) {
  for (const auto& [key, value] : std::vector<std::pair<const char*, nlohmann::json>>{
           {"swiglu_limit", 6.0}, {"swiglu_alpha", 1.0}, {"hidden_act", "gelu_pytorch_tanh"}}) {
    nlohmann::json json = golden_json("tiny_gpt_oss/dense/config.json");
    json[key] = value;
    EXPECT_NE(error_of(json).find(key), std::string::npos) << error_of(json);
  }
}

TEST(GptOss, AGgufFileSaysItsPattern) {
  using Windows = std::vector<int64_t>;
  const std::string pattern = "gpt-oss.attention.sliding_window_pattern";
  EXPECT_EQ(windows_of(config_of_gguf("tiny_gpt_oss/dense", {})), (Windows{8, 0}));
  EXPECT_EQ(windows_of(config_of_gguf("tiny_gpt_oss/dense", {{pattern, std::vector<bool>{false, true}}})),
            (Windows{0, 8}));
  EXPECT_FALSE(config_of_gguf("tiny_gpt_oss/dense", {}).ropes[0].scaling.truncate);
}

TEST(Families, ANumberThatIsNoneIsRefusedByKey) {
  for (const auto& [member, key] : std::vector<std::pair<const char*, const char*>>{
           {R"("eos_token_id": 4294967298)", "eos_token_id"},
           {R"("eos_token_id": 2.7)", "eos_token_id"},
           {R"("eos_token_id": true)", "eos_token_id"},
           {R"("eos_token_id": -1)", "eos_token_id"},
           {R"("eos_token_id": [1, "x"])", "eos_token_id"},
           {R"("eos_token_id": [1, 4294967298])", "eos_token_id"},
           {R"("eos_token_id": {"id": 1})", "eos_token_id"},
           {R"("vocab_size": 96.5)", "vocab_size"},
           {R"("vocab_size": "96")", "vocab_size"},
           {R"("vocab_size": true)", "vocab_size"},
           {R"("vocab_size": null)", "vocab_size"},
           {R"("hidden_size": 1e26)", "hidden_size"},
           {R"("hidden_size": 18446744073709551615)", "hidden_size"},
           {R"("head_dim": -16)", "head_dim"},
           {R"("num_hidden_layers": [1])", "num_hidden_layers"},
           {R"("rms_norm_eps": "small")", "rms_norm_eps"},
           {R"("rms_norm_eps": true)", "rms_norm_eps"},
           {R"("tie_word_embeddings": 1)", "tie_word_embeddings"},
           {R"("hidden_act": 3)", "hidden_act"},
           {R"("rope_parameters": 3)", "rope_parameters"},
           {R"("rope_parameters": {"rope_theta": "x"})", "rope_parameters.rope_theta"},
           {R"("rope_parameters": {"rope_type": "linear"})", "rope_parameters.factor"},
           {R"("unknown": 1e400)", "out of range"}})
    EXPECT_NE(error_of_text(with_member(member)).find(key), std::string::npos)
        << member << ": " << error_of_text(with_member(member));
}

TEST(Families, SizesThatNoMemoryHoldsAreRefused) {
  nlohmann::json json = golden_json("tiny_llama31/config.json");
  json["num_attention_heads"] = json["num_key_value_heads"] = 1 << 20;
  json["head_dim"] = 1 << 20;
  EXPECT_NE(error_of(json).find("head_dim"), std::string::npos) << error_of(json);
  json = golden_json("tiny_llama31/config.json");
  json["intermediate_size"] = json["hidden_size"] = 2147483646;
  EXPECT_NE(error_of(json).find("2^60 parameters"), std::string::npos) << error_of(json);
}

TEST(Families, AConfigIsReadWithinBounds) {
  const std::string text = golden_json("tiny_llama31/config.json").dump();
  EXPECT_EQ(error_of_text("\xEF\xBB\xBF" + text), "no error");
  EXPECT_EQ(error_of_text(with_member(R"("vocab_size": 96.0)")), "no error");
  EXPECT_NE(error_of_text(with_member("\"unknown\": " + std::string(100000, '['))).find("nested deeper"),
            std::string::npos);
  const std::string long_name = with_member("\"hidden_act\": \"" + std::string(20000, 'a') + "\"");
  EXPECT_LT(error_of_text(long_name).size(), 500u);
}

TEST(Families, RotaryAnglesThatWouldBeNoNumbersAreRefusedByKey) {
  const nlohmann::json json = golden_json("tiny_llama31/config.json");
  EXPECT_EQ(error_of(json), "no error");
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, double>>{{"rope_theta", 0.0},
                                                   {"rope_theta", -1.0},
                                                   {"rope_theta", 1e-300},
                                                   {"factor", 0.0},
                                                   {"factor", -8.0},
                                                   {"factor", 1e-300},
                                                   {"low_freq_factor", 4.0},
                                                   {"low_freq_factor", 0.0},
                                                   {"high_freq_factor", 1.0},
                                                   {"high_freq_factor", -1.0},
                                                   {"original_max_position_embeddings", 0}}) {
    nlohmann::json changed = json;
    changed["rope_parameters"][key] = value;
    EXPECT_NE(error_of(changed).find(key), std::string::npos) << key << " " << value << ": " << error_of(changed);
  }
  ModelConfig config = config_of(json);
  config.ropes[0].theta = std::numeric_limits<double>::infinity();  // what JSON cannot say, GGUF can
  EXPECT_THROW(config.check(), ConfigError);
  config.ropes[0].theta = std::nan("");
  EXPECT_THROW(config.check(), ConfigError);
}

// rope_freqs.weight of a GGUF file is what Llama 3.1's scaling makes of the frequencies.
TEST(Llama, FrequencyFactorsOfAGgufFileAreTheDirectorysScaling) {
  const ModelFiles files = open_model_files(golden("tiny_llama31/model.gguf"));
  ASSERT_EQ(files.config.ropes[0].frequency_factors.size(), 8u);
  EXPECT_EQ(files.config.ropes[0].frequency_factors[0], 1.0f);
  EXPECT_NEAR(files.config.ropes[0].frequency_factors[1], 3.2995388f, 1e-6);
  EXPECT_EQ(files.config.ropes[0].frequency_factors[7], 8.0f);
  const auto ids = golden_json("tiny_llama31/expected.json")["input_ids"].get<std::vector<std::vector<int32_t>>>();
  const Tensor expected = logits_of(load(golden("tiny_llama31"), DType::f32), ids);
  const Tensor found = logits_of(load(golden("tiny_llama31/model.gguf"), DType::f32), ids);
  EXPECT_LE(largest_difference(found, expected), 1e-4);
  ModelConfig plain = files.config;
  plain.ropes[0].frequency_factors.assign(8, 1.0f);
  EXPECT_GT(largest_difference(logits_of(Transformer(plain, *files.weights, {}), ids), expected), 1e-2);
}

TEST(Llama, FrequencyFactorsOfAnotherLengthAreRefused) {
  std::ifstream stream(golden("tiny_llama31/model.gguf"), std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  const std::string name = "rope_freqs.weight";
  const size_t extent = bytes.find(name) + name.size() + sizeof(uint32_t);  // past the number of dimensions
  ASSERT_EQ(bytes.at(extent), 8);
  bytes[extent] = 4;
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "model.gguf", std::ios::binary) << bytes;
  try {
    open_model_files(folder.path() / "model.gguf");
    FAIL() << "four factors for eight frequencies were accepted";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("rope_freqs.weight: expected shape"), std::string::npos) << error.what();
  }
}

TEST(Llama, FrequencyFactorsThatDoNotFitAreRefused) {
  ModelConfig config = config_of(golden_json("tiny_llama31/config.json"));
  const auto error_with = [&config](std::vector<float> factors) -> std::string {
    config.ropes[0].frequency_factors = std::move(factors);
    try {
      config.check();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_with(std::vector<float>(8, 2.0f)), "no error");
  for (const std::vector<float>& factors :
       {std::vector<float>(7, 1.0f), std::vector<float>(8, 0.0f), std::vector<float>(8, std::nanf("")),
        std::vector<float>(8, std::numeric_limits<float>::infinity())})
    EXPECT_NE(error_with(factors).find("rope_freqs"), std::string::npos) << error_with(factors);
}

TEST(Families, AnUnknownModelTypeIsNamedWithTheNearestKnown) {
  nlohmann::json json = golden_json("tiny_llama/untied/config.json");
  for (const auto& [found, nearest] : {std::pair{"granite4", "granite"}, {"llama4", "llama"}, {"phi4", "phi3"}}) {
    json["model_type"] = found;
    EXPECT_NE(error_of(json).find("\"" + std::string(found) + "\", to which " + nearest + " comes nearest"),
              std::string::npos)
        << error_of(json);
  }
  json["model_type"] = "bloom";
  EXPECT_EQ(error_of(json).find("nearest"), std::string::npos) << error_of(json);
}

TEST(Families, WhatIsNotComputedIsNamed) {
  nlohmann::json json = golden_json("tiny_llama/untied/config.json");
  const auto error_with = [&json](const char* key, const nlohmann::json& value) {
    nlohmann::json changed = json;
    changed[key] = value;
    return error_of(changed);
  };
  for (const auto& [key, value] : std::vector<std::pair<const char*, nlohmann::json>>{{"hidden_act", "relu"},
                                                                                      {"mlp_bias", true},
                                                                                      {"num_hidden_layers", 0},
                                                                                      {"num_hidden_layers", 1000000},
                                                                                      {"model_type", "bloom"}})
    EXPECT_NE(error_with(key, value).find(key), std::string::npos) << error_with(key, value);
}

TEST(Exaone4, LayersThatSeeAllDoNotTurnWhereOthersSlide) {
  nlohmann::json json = golden_json("tiny_exaone4/windows/config.json");
  const auto pattern = [](const ModelConfig& config) {
    std::string letters;
    for (const LayerConfig& layer : config.layers)
      letters += layer.sliding_window == 8 && layer.rope == 0         ? 'L'
                 : layer.sliding_window == 0 && layer.rope == no_rope ? 'G'
                                                                      : '?';
    return letters;
  };
  EXPECT_EQ(pattern(config_of(json)), "LLLG");
  json.erase("layer_types");
  EXPECT_EQ(pattern(config_of(json)), "LLLG");
  json["sliding_window_pattern"] = 2;
  EXPECT_EQ(pattern(config_of(json)), "LGLG");
  json["sliding_window_pattern"] = "LG";
  EXPECT_EQ(pattern(config_of(json)), "LGLG");
  json["sliding_window_pattern"] = "GL";
  EXPECT_EQ(pattern(config_of(json)), "GLGG") << "the last one sees all";
  json["sliding_window_pattern"] = "LXG";
  EXPECT_NE(error_of(json).find("sliding_window_pattern"), std::string::npos) << error_of(json);
  json["sliding_window_pattern"] = 0;
  EXPECT_NE(error_of(json).find("sliding_window_pattern"), std::string::npos) << error_of(json);
  json["sliding_window"] = nullptr;
  json["layer_types"] = {"sliding_attention", "full_attention", "full_attention", "full_attention"};
  EXPECT_NE(error_of(json).find("sliding_window"), std::string::npos) << error_of(json);
  json.erase("layer_types");
  for (const LayerConfig& layer : config_of(json).layers) EXPECT_EQ(layer.rope, 0) << "without windows all turn";
}

TEST(SeedOss, BiasesAreWhereTheConfigSays) {
  nlohmann::json json = golden_json("tiny_seed_oss/config.json");
  EXPECT_EQ(config_of(json).attention_bias, AttentionBias::qkv);
  json["attention_out_bias"] = true;
  EXPECT_EQ(config_of(json).attention_bias, AttentionBias::qkvo);
  json["attention_bias"] = false;
  EXPECT_NE(error_of(json).find("attention_out_bias"), std::string::npos) << error_of(json);
  json["attention_out_bias"] = false;
  EXPECT_EQ(config_of(json).attention_bias, AttentionBias::none);
  json["mlp_bias"] = true;
  EXPECT_NE(error_of(json).find("mlp_bias"), std::string::npos) << error_of(json);
}

}  // namespace
}  // namespace lathe::nn
