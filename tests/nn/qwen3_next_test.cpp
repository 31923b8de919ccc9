// What is Qwen3-Next's own: its config, and projections of a gated delta net that are joined by key heads.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "nn/convert/gguf_model.h"
#include "nn/layer_layout.h"
#include "nn/weights/ggml_types.h"
#include "nn/weights/key_head_rows.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/changed_configs.h"

namespace lathe::nn {
namespace {

nlohmann::json next_json(const char* model = "all") {
  return golden_json(std::string("tiny_qwen3_next/") + model + "/config.json");
}

std::vector<bool> sparse_layers(const nlohmann::json& json) {
  std::vector<bool> experts;
  for (const LayerConfig& layer : config_of(json).layers) experts.push_back(layer.experts);
  return experts;
}

TEST(Qwen3Next, WhatTheConfigLeavesOutIsAsInTransformers) {
  nlohmann::json json = next_json();
  for (const char* key :
       {"vocab_size", "intermediate_size", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
        "shared_expert_intermediate_size", "norm_topk_prob", "num_key_value_heads", "layer_types", "head_dim",
        "decoder_sparse_step", "mlp_only_layers", "linear_num_value_heads"})
    json.erase(key);
  const ModelConfig config = config_of(json);
  EXPECT_EQ(config.vocab_size, 151936);
  EXPECT_EQ(config.intermediate_size, 5632);
  EXPECT_EQ(config.experts.num_experts, 512);
  EXPECT_EQ(config.experts.num_experts_per_tok, 10);
  EXPECT_EQ(config.experts.intermediate_size, 512);
  EXPECT_EQ(config.experts.shared.intermediate_size, 512);
  EXPECT_TRUE(config.experts.norm_topk_prob);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.gated_delta.heads.value_heads, 32);
  EXPECT_TRUE(config.gated_delta.joined_projections);
  EXPECT_EQ(attending(config), (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ(sparse_layers(json), (std::vector<bool>{true, true, true, true}));
}

TEST(Qwen3Next, TheConfigSaysWhichLayersHaveExperts) {
  nlohmann::json json = next_json();
  json["decoder_sparse_step"] = 2;
  EXPECT_EQ(sparse_layers(json), (std::vector<bool>{false, true, false, true}));
  json["mlp_only_layers"] = {3};
  EXPECT_EQ(sparse_layers(json), (std::vector<bool>{false, true, false, false}));
  json["num_experts"] = 0;
  EXPECT_EQ(sparse_layers(json), (std::vector<bool>{false, false, false, false}));
  EXPECT_FALSE(config_of(next_json("some")).experts.norm_topk_prob);
}

TEST(Qwen3Next, WhatNoneHasIsNamed) {
  for (const auto& [key, value] : {std::pair("num_experts_per_tok", 7),
                                   {"shared_expert_intermediate_size", 0},
                                   {"decoder_sparse_step", 0},
                                   {"linear_num_value_heads", 3},
                                   {"full_attention_interval", 0}}) {
    nlohmann::json json = next_json();
    json.erase("layer_types");
    json[key] = value;
    EXPECT_NE(error_of(json).find(key), std::string::npos) << error_of(json);
  }
}

TEST(KeyHeadRows, ComeBack) {
  const KeyHeadRows rows{.key_heads = 3, .key_dim = 2, .values = 4};
  EXPECT_EQ(rows.qkv_rows(), 24);
  EXPECT_EQ(rows.z_rows(), 12);
  EXPECT_EQ(rows.stored(0), 0) << "the first head's q";
  EXPECT_EQ(rows.stored(2), 6) << "its k, behind three heads' q";
  EXPECT_EQ(rows.stored(5), 13) << "the second row of its v, behind all k";
  EXPECT_EQ(rows.stored(8), 24) << "its z, behind all v";
  EXPECT_EQ(rows.stored(12), 2) << "the second head's q";
  std::vector<int64_t> found;
  for (int64_t i = 0; i < 36; ++i) {
    EXPECT_EQ(rows.plain(rows.stored(i)), i);
    found.push_back(rows.stored(i));
  }
  std::sort(found.begin(), found.end());
  std::vector<int64_t> all(36);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(found, all) << "each row once";
}

std::vector<float> rows_of_weight(const WeightSource& source, const std::string& name) {
  const Shape shape = source.find(name)->shape;
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  source.read_rows(name, 0, shape.numel() / shape[-1], values.data());
  return values;
}

// In blocks of one format a weight of two tensors is in blocks, too, and reads them.
TEST(Qwen3Next, BlocksOfBothTensorsAreBlocksOfTheJoinedWeight) {
  const TemporaryFolder folder;
  const ModelFiles files = open_model_files(golden("tiny_qwen3_next/all"));
  const std::string name = "model.layers.0.linear_attn.in_proj_qkvz.weight";
  const auto written_as = [&](const char* qkv, const char* z) {
    GgufModel made = gguf_model_of(files, *ggml_writer("Q8_0"));
    for (GgufTensorToWrite& tensor : made.tensors) {
      if (tensor.weight.name == "blk.0.attn_qkv.weight") tensor.type = ggml_writer(qkv);
      if (tensor.weight.name == "blk.0.attn_gate.weight") tensor.type = ggml_writer(z);
    }
    const std::filesystem::path path = folder.path() / (std::string(qkv) + z + ".gguf");
    write_gguf(path, made.metadata, made.tensors);
    return open_model_files(path);
  };
  const ModelFiles alike = written_as("Q8_0", "Q8_0"), mixed = written_as("Q8_0", "Q4_0");
  ASSERT_TRUE(alike.weights->find(name)->has_blocks);
  const auto blocks = alike.weights->blocks(name);
  ASSERT_TRUE(blocks.has_value());
  const std::vector<float> values = rows_of_weight(*alike.weights, name);
  std::vector<float> row(32);
  ASSERT_EQ(blocks->rows.size() * row.size(), values.size());
  const auto file = GgufFile::open(folder.path() / "Q8_0Q8_0.gguf");
  const GgmlType* const type = ggml_type(file->find_tensor("blk.0.attn_qkv.weight")->type);
  for (size_t i = 0; i < blocks->rows.size(); ++i) {
    type->dequantize(blocks->rows[i], 1, row.data());
    EXPECT_TRUE(std::equal(row.begin(), row.end(), values.begin() + static_cast<ptrdiff_t>(32 * i))) << i;
  }
  EXPECT_FALSE(mixed.weights->find(name)->has_blocks);
  EXPECT_FALSE(mixed.weights->blocks(name).has_value());
  const auto logits = [&](const ModelFiles& model, StoredBlockUse use) {
    return logits_of(Transformer(model.config, *model.weights, {.stored_blocks = use}), {{1, 2, 3, 4, 5}});
  };
  for (const ModelFiles* model : {&alike, &mixed})
    EXPECT_LE(largest_difference(logits(*model, StoredBlockUse::keep), logits(*model, StoredBlockUse::widen)), 0.05);
}

// llama.cpp's first converter left in_proj_qkvz as it is.
TEST(Qwen3Next, OlderGgufFilesHaveTheProjectionsAsHuggingFaceDoes) {
  const TemporaryFolder folder;
  const ModelFiles files = open_model_files(golden("tiny_qwen3_next/all"));
  GgufModel made = gguf_model_of(files, *ggml_writer("F32"));
  std::erase_if(made.tensors, [](const GgufTensorToWrite& tensor) {
    return tensor.weight.name.ends_with("attn_qkv.weight") || tensor.weight.name.ends_with("attn_gate.weight");
  });
  for (const int64_t layer : {0, 1, 2}) {
    const std::string name = layer_prefix(layer) + "linear_attn.in_proj_qkvz.weight";
    made.tensors.push_back({{"blk." + std::to_string(layer) + ".ssm_in.weight", files.weights->find(name)->shape,
                             [&files, name](int64_t first, int64_t count, float* out) {
                               files.weights->read_rows(name, first, count, out);
                             }},
                            ggml_writer("F32")});
  }
  write_gguf(folder.path() / "older.gguf", made.metadata, made.tensors);
  const ModelFiles older = open_model_files(folder.path() / "older.gguf"),
                   newer = open_model_files(golden("tiny_qwen3_next/all/model.gguf"));
  ASSERT_EQ(older.weights->weights().size(), newer.weights->weights().size());
  const auto logits = [](const ModelFiles& model) {
    return logits_of(Transformer(model.config, *model.weights, {}), {{1, 2, 3, 4, 5}});
  };
  EXPECT_EQ(largest_difference(logits(older), logits(newer)), 0.0);
}

// Heads that are not those of its tensors.
TEST(Qwen3Next, AGgufFileWhoseTensorsHaveOtherRowsIsRefused) {
  for (const auto& [key, value] : std::vector<std::pair<std::string, int64_t>>{{"qwen3next.ssm.state_size", 16},
                                                                               {"qwen3next.ssm.inner_size", 128}})
    EXPECT_THROW(config_of_gguf("tiny_qwen3_next/all", {{key, value}}), FormatError) << key;
}

TEST(Qwen3Next, AnAdapterOfAllLinearsNamesTheJoinedOnes) {
  Transformer model = load(golden("tiny_qwen3_next/all"), DType::f32);
  LoraConfig config;
  config.r = 2;
  config.target_modules_regex = "all-linear";
  model.add_lora(config, 1);
  std::vector<std::string> targets = model.adapter().config.target_modules;
  for (const char* name : {"in_proj_qkvz", "in_proj_ba", "out_proj", "q_proj", "shared_expert_gate"})
    EXPECT_NE(std::find(targets.begin(), targets.end(), name), targets.end()) << name;
}

}  // namespace
}  // namespace lathe::nn
