// What is Qwen3.5's own: its configs, its names beside a model that sees pictures, and its heads' order in GGUF.
#include <gtest/gtest.h>

#include <cmath>

#include "nn/convert/gguf_model.h"
#include "nn/layer_layout.h"
#include "nn/weights/ggml_types.h"
#include "nn/weights/head_tiling.h"
#include "nn/weights/own_weights.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/changed_configs.h"

namespace lathe::nn {
namespace {

nlohmann::json qwen3_5_json() { return golden_json("tiny_qwen3_5/text/config.json"); }

TEST(Qwen35, EveryFourthLayerAttendsWhereTheConfigListsNone) {
  nlohmann::json json = qwen3_5_json();
  EXPECT_EQ(attending(config_of(json)), (std::vector<bool>{false, false, false, true}));
  json["layer_types"] = {"full_attention", "linear_attention", "linear_attention", "full_attention"};
  EXPECT_EQ(attending(config_of(json)), (std::vector<bool>{true, false, false, true}));
  json["layer_types"] = {"full_attention"};
  EXPECT_NE(error_of(json).find("layer_types"), std::string::npos) << error_of(json);
  json["layer_types"] = {"full_attention", "conv", "conv", "conv"};
  EXPECT_NE(error_of(json).find("linear_attention"), std::string::npos) << error_of(json);
  json.erase("layer_types");
  EXPECT_EQ(attending(config_of(json)), (std::vector<bool>{false, false, false, true}));
  json["full_attention_interval"] = 2;
  EXPECT_EQ(attending(config_of(json)), (std::vector<bool>{false, true, false, true}));
  json["full_attention_interval"] = 0;
  EXPECT_NE(error_of(json).find("full_attention_interval"), std::string::npos) << error_of(json);
}

TEST(Qwen35, WhatTheConfigLeavesOutIsAsInTransformers) {
  nlohmann::json json = qwen3_5_json();
  for (const char* key : {"linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim",
                          "linear_num_key_heads", "linear_num_value_heads", "head_dim"})
    json.erase(key);
  json["rope_parameters"].erase("partial_rotary_factor");
  const ModelConfig config = config_of(json);
  EXPECT_EQ(config.gated_delta.taps, 4);
  EXPECT_EQ(config.gated_delta.heads.key_heads, 16);
  EXPECT_EQ(config.gated_delta.heads.value_heads, 32);
  EXPECT_EQ(config.gated_delta.heads.key_dim, 128);
  EXPECT_EQ(config.gated_delta.heads.value_dim, 128);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.ropes[0].rotary_dim, 64) << "a quarter of 256";
}

TEST(Qwen35, WhatNoNetHasIsNamed) {
  for (const auto& [key, value] : std::vector<std::pair<const char*, nlohmann::json>>{{"linear_num_value_heads", 3},
                                                                                      {"linear_num_key_heads", 0},
                                                                                      {"linear_key_head_dim", 12},
                                                                                      {"linear_value_head_dim", 512},
                                                                                      {"linear_conv_kernel_dim", 1},
                                                                                      {"linear_conv_kernel_dim", 99}}) {
    nlohmann::json json = qwen3_5_json();
    json[key] = value;
    EXPECT_NE(error_of(json).find(key), std::string::npos) << error_of(json);
  }
  nlohmann::json json = qwen3_5_json();
  json["rope_parameters"]["partial_rotary_factor"] = 0;
  EXPECT_NE(error_of(json).find("partial_rotary_factor"), std::string::npos) << error_of(json);
}

TEST(Qwen35, TheTextModelOfOneThatSeesPictures) {
  const ModelFiles files = open_model_files(golden("tiny_qwen3_5/pictures"));
  EXPECT_EQ(files.config.family, "qwen3_5_text");
  EXPECT_TRUE(files.config.tie_word_embeddings);
  const auto whole = SafetensorsFile::open(golden("tiny_qwen3_5/pictures/model.safetensors"));
  EXPECT_LT(files.weights->weights().size(), whole->names().size()) << "what sees is left out";
  for (const WeightInfo& info : files.weights->weights()) {
    EXPECT_EQ(info.name.find("visual"), std::string::npos);
    std::string stored = info.name;
    stored.replace(0, std::string("model.").size(), "model.language_model.");
    std::vector<float> values(static_cast<size_t>(info.shape.numel()));
    const int64_t columns = info.shape[-1];
    files.weights->read_rows(info.name, 0, info.shape.numel() / columns, values.data());
    const Tensor expected = whole->tensor(stored);
    EXPECT_EQ(std::memcmp(values.data(), expected.raw(), static_cast<size_t>(expected.nbytes())), 0) << info.name;
  }
  EXPECT_EQ(files.weights->find("model.visual.patch_embed.proj.weight"), nullptr);
  EXPECT_THROW(files.weights->read_rows("model.nothing", 0, 1, nullptr), Error);
}

TEST(Qwen35, ASourceThatHoldsTheModelAloneIsLeftAsItIs) {
  auto source = open_safetensors_weights(golden("tiny_qwen3_5/text"));
  const WeightSource* const before = source.get();
  const auto own = own_weights(std::move(source), open_model_files(golden("tiny_qwen3_5/text")).config);
  EXPECT_EQ(own.get(), before);
}

TEST(Qwen35, HeadsInTurnComeBack) {
  const HeadTiling tiling{.key_heads = 3, .per_key = 2, .size = 4, .first = 5};
  EXPECT_EQ(tiling.end(), 29);
  EXPECT_EQ(tiling.stored(4), 4) << "before the heads";
  EXPECT_EQ(tiling.stored(5), 5);
  EXPECT_EQ(tiling.stored(5 + 4), 5 + 12) << "the first key's second head stands behind three first ones";
  EXPECT_EQ(tiling.stored(5 + 8 + 1), 5 + 4 + 1) << "the second key's first head is the second";
  for (int64_t i = 0; i < tiling.end(); ++i) {
    EXPECT_EQ(tiling.plain(tiling.stored(i)), i);
    EXPECT_EQ(tiling.stored(tiling.plain(i)), i);
  }
}

// The file has −exp(A_log), and norms with the one added: in f32 the last digits are others.
class GatedDeltaGguf : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Golden, GatedDeltaGguf,
                         testing::Values("tiny_qwen3_5/text", "tiny_qwen3_5_moe/text", "tiny_qwen3_next/all"));

TEST_P(GatedDeltaGguf, HasTheDirectorysWeightsInAnotherOrder) {
  const std::string model = GetParam();
  const ModelFiles directory = open_model_files(golden(model)), gguf = open_model_files(golden(model + "/model.gguf"));
  ASSERT_EQ(directory.weights->weights().size(), gguf.weights->weights().size());
  for (const WeightInfo& info : directory.weights->weights()) {
    SCOPED_TRACE(info.name);
    const WeightInfo* found = gguf.weights->find(info.name);
    ASSERT_NE(found, nullptr);
    ASSERT_EQ(found->shape, info.shape);
    const int64_t columns = info.shape[-1], rows = info.shape.numel() / columns;
    std::vector<float> expected(static_cast<size_t>(rows * columns)), values(expected.size());
    directory.weights->read_rows(info.name, 0, rows, expected.data());
    gguf.weights->read_rows(info.name, 0, rows, values.data());
    const float added = has_norm_offset(info.name) ? 1 : 0;
    const bool exponent = info.name.ends_with("A_log");
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(values[i], expected[i] + added, exponent || added != 0 ? 1e-6 : 0.0);
  }
}

// exp in f32 is another library's.
TEST_P(GatedDeltaGguf, IsWhatThePackagesConverterWrites) {
  const TemporaryFolder folder;
  const std::string model = GetParam();
  const ModelFiles files = open_model_files(golden(model));
  const GgufModel made = gguf_model_of(files, *ggml_writer("F32"));
  write_gguf(folder.path() / "model.gguf", made.metadata, made.tensors);
  const auto written = GgufFile::open(folder.path() / "model.gguf"),
             expected = GgufFile::open(golden(model + "/model.gguf"));
  const auto is = open_gguf_weights(written, {}), should = open_gguf_weights(expected, {});
  ASSERT_EQ(is->weights().size(), should->weights().size());
  for (const WeightInfo& info : should->weights()) {
    SCOPED_TRACE(info.name);
    const WeightInfo* found = is->find(info.name);
    ASSERT_NE(found, nullptr);
    ASSERT_EQ(found->shape, info.shape);
    const int64_t columns = info.shape[-1], rows = info.shape.numel() / columns;
    std::vector<float> a(static_cast<size_t>(rows * columns)), b(a.size());
    is->read_rows(info.name, 0, rows, a.data());
    should->read_rows(info.name, 0, rows, b.data());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], info.name.ends_with("ssm_a") ? 1e-6f : 0.0f);
  }
  for (const auto& [key, value] : expected->metadata()) {
    if (!key.starts_with("qwen")) continue;
    const auto found = written->metadata().find(key);
    ASSERT_NE(found, written->metadata().end()) << key;
    EXPECT_EQ(found->second, value) << key;
  }
}

TEST(Qwen35, AGgufFileSaysItsHeadsAndLeavesOutWhatGuesses) {
  const std::string model = "tiny_qwen3_5/text";
  const ModelConfig config = config_of_gguf(model, {});
  const ModelConfig expected = open_model_files(golden(model)).config;
  EXPECT_EQ(config.gated_delta.heads.value_heads, expected.gated_delta.heads.value_heads);
  EXPECT_EQ(config.gated_delta.heads.value_dim, expected.gated_delta.heads.value_dim);
  EXPECT_EQ(config.ropes[0].rotary_dim, 4);
  EXPECT_EQ(config.norm_weight_offset, 0);
  EXPECT_EQ(attending(config), (std::vector<bool>{false, false, false, true}));
  const ModelConfig shorter = config_of_gguf(model, {{"qwen35.nextn_predict_layers", int64_t{1}}});
  EXPECT_EQ(shorter.num_hidden_layers(), 3);
  EXPECT_EQ(shorter.unused_weights.back(), "blk.3.");
  for (const auto& [key, value] : std::vector<std::pair<std::string, int64_t>>{{"qwen35.ssm.group_count", 0},
                                                                               {"qwen35.ssm.time_step_rank", 3},
                                                                               {"qwen35.ssm.inner_size", 65536},
                                                                               {"qwen35.ssm.conv_kernel", 1},
                                                                               {"qwen35.nextn_predict_layers", 4},
                                                                               {"qwen35.full_attention_interval", 0}})
    EXPECT_THROW(config_of_gguf(model, {{key, value}}), Error) << key;
}

// A file with one tensor, of four value heads of `size` columns over two key heads, in blocks of 32.
std::unique_ptr<WeightSource> tiled_columns(const std::filesystem::path& path, int64_t size) {
  const int64_t columns = 4 * size;
  write_gguf(path, {{"general.architecture", std::string("none")}},
             {{{"w", Shape{3, columns},
                [columns](int64_t first, int64_t count, float* out) {
                  for (int64_t i = 0; i < count * columns; ++i)
                    out[i] = std::sin(static_cast<float>(first * columns + i));
                }},
               ggml_writer("Q8_0")}});
  GgufPlace place{.name = "w"};
  place.column_tiling = {.key_heads = 2, .per_key = 2, .size = size};
  return open_gguf_weights(GgufFile::open(path), {{"w", place}});
}

TEST(Qwen35, BlocksOfHeadsInTurnAreCopiedInHuggingFacesOrder) {
  const TemporaryFolder folder;
  const auto source = tiled_columns(folder.path() / "q8.gguf", 32);
  ASSERT_TRUE(source->find("w")->has_blocks);
  const auto blocks = source->blocks("w");
  ASSERT_TRUE(blocks.has_value());
  std::vector<float> rows(3 * 128), of_blocks(128), stored(128);
  source->read_rows("w", 0, 3, rows.data());
  const GgmlType* const type = ggml_type(GgufFile::open(folder.path() / "q8.gguf")->tensors()[0].type);
  for (size_t row = 0; row < 3; ++row) {
    type->dequantize(blocks->rows[row], 4, of_blocks.data());
    for (size_t i = 0; i < 128; ++i) EXPECT_EQ(of_blocks[i], rows[row * 128 + i]) << row << ", " << i;
  }
  const auto plain = open_gguf_weights(GgufFile::open(folder.path() / "q8.gguf"), {});
  plain->read_rows("w", 0, 1, stored.data());
  EXPECT_EQ(rows[32], stored[64]) << "the first key's second head stands third in the file";
}

TEST(Qwen35, HeadsThatEndWithinBlocksAreWidened) {
  const TemporaryFolder folder;
  const auto source = tiled_columns(folder.path() / "narrow.gguf", 16);
  EXPECT_FALSE(source->find("w")->has_blocks);
  EXPECT_FALSE(source->blocks("w").has_value());
  // And so is a model that has them.
  const ModelFiles files = open_model_files(golden("tiny_qwen3_5/text"));
  const GgufModel made = gguf_model_of(files, *ggml_writer("Q8_0"));
  write_gguf(folder.path() / "model.gguf", made.metadata, made.tensors);
  const ModelFiles quantised = open_model_files(folder.path() / "model.gguf");
  const auto logits = [&](StoredBlockUse use) {
    const Transformer model(quantised.config, *quantised.weights, {.stored_blocks = use});
    return logits_of(model, {{1, 2, 3, 4, 5}});
  };
  EXPECT_LE(largest_difference(logits(StoredBlockUse::keep), logits(StoredBlockUse::widen)), 0.05);
}

// Another number of heads than its tensors have rows for.
TEST(Qwen35, AGgufFileWhoseHeadsAreNotThoseOfItsTensorsIsRefused) {
  EXPECT_THROW(config_of_gguf("tiny_qwen3_5/text", {{"qwen35.ssm.inner_size", int64_t{128}}}), FormatError);
}

TEST(Qwen35, NormsAreHeldLessOneButForThoseOfHeads) {
  Transformer model = load(golden("tiny_qwen3_5/text"), DType::bf16, WeightMode::trainable);
  int64_t shifted = 0;
  for (const Parameter& parameter : model.trainable_parameters()) {
    shifted += parameter.stored_offset == 1 ? 1 : 0;
    const bool of_heads = parameter.name.ends_with("linear_attn.norm.weight"),
               exact = parameter.name.ends_with("A_log") || parameter.name.ends_with("dt_bias");
    EXPECT_TRUE(!of_heads || parameter.stored_offset == 0) << parameter.name;
    EXPECT_EQ(parameter.leaf.value().dtype(), exact ? DType::f32 : DType::bf16) << parameter.name;
  }
  EXPECT_EQ(shifted, 4 * 2 + 2 + 1);
}

}  // namespace
}  // namespace lathe::nn
