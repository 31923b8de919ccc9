// Granite 4.0's config and its ways to say the same, what is refused, and its GGUF, in which gate and up are apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "core/error.h"
#include "nn/convert/gguf_model.h"
#include "nn/convert/hf_model.h"
#include "nn/kv_cache.h"
#include "nn/layer_layout.h"
#include "nn/weights/ggml_types.h"
#include "tests/nn/changed_configs.h"

namespace lathe::nn {
namespace {

nlohmann::json hybrid_json() { return golden_json("tiny_granite4/hybrid/config.json"); }

TEST(GraniteHybrid, LayersAreSaidInTwoWays) {
  nlohmann::json json = hybrid_json();
  const std::vector<bool> expected{false, true, false};
  EXPECT_EQ(attending(config_of(json)), expected);
  json["layer_types"] = {"mamba", "attention", "mamba"};
  EXPECT_EQ(attending(config_of(json)), expected);
  json["layers_block_type"] = json["layer_types"];
  json.erase("layer_types");
  EXPECT_EQ(attending(config_of(json)), expected);
}

TEST(GraniteHybrid, WhatIsNotSaidIsAsTransformersHasIt) {
  nlohmann::json json = hybrid_json();
  for (const char* key : {"mamba_d_conv", "mamba_expand", "mamba_n_groups", "mamba_conv_bias", "mamba_proj_bias",
                          "time_step_limit", "position_embedding_type"})
    json.erase(key);
  json["mamba_d_head"] = "auto";
  const ModelConfig config = config_of(json);
  EXPECT_EQ(config.mamba2.taps, 4);
  EXPECT_EQ(config.mamba2.heads.head_dim, 16);
  EXPECT_TRUE(config.mamba2.conv_bias);
  EXPECT_FALSE(config.mamba2.proj_bias);
  EXPECT_EQ(config.mamba2.dt_min, 0);
  EXPECT_TRUE(std::isinf(config.mamba2.dt_max));
  EXPECT_EQ(config.layers[1].rope, no_rope);
  const ModelConfig options = config_of(golden_json("tiny_granite4/options/config.json"));
  EXPECT_EQ(options.mamba2.dt_min, 0.3);
  EXPECT_EQ(options.mamba2.dt_max, 1.5);
  EXPECT_EQ(options.layers[0].rope, 0);
}

TEST(GraniteHybrid, WhatIsNotComputedIsRefusedByItsKey) {
  const auto refused = [](const char* key, const nlohmann::json& value, const char* named) {
    nlohmann::json json = hybrid_json();
    json[key] = value;
    EXPECT_NE(error_of(json).find(named), std::string::npos) << key << ": " << error_of(json);
  };
  refused("mamba_n_groups", 2, "mamba_n_groups");
  refused("mamba_d_state", 20, "mamba_d_state");
  refused("mamba_d_conv", 1, "mamba_d_conv");
  refused("mamba_n_heads", 5, "mamba_n_heads");
  refused("mamba_d_head", 8, "mamba_d_head");
  refused("time_step_limit", {1.5, 0.5}, "time_step_limit");
  refused("time_step_limit", 1.5, "time_step_limit");
  refused("time_step_limit", {"low", "high"}, "time_step_limit");
  refused("time_step_limit", {0.0, {{"__float__", 3}}}, "time_step_limit");
  refused("position_embedding_type", "alibi", "position_embedding_type");
  refused("hidden_act", "gelu_pytorch_tanh", "hidden_act");
  refused("layer_types", {"mamba", "attention"}, "layer_types");
  refused("layer_types", {"mamba", "attention", "conv"}, "layer_types");
  refused("layer_types", {"mamba", "mamba", "mamba"}, "layer_types");
}

TEST(GraniteHybrid, StatesAreAConvolutionsRowsAndAMatrixOfEachHead) {
  const ModelConfig config = config_of(hybrid_json());
  EXPECT_TRUE(config.has_states());
  const KvCache cache(config, DType::bf16, 4, 16, {}, 5);
  EXPECT_EQ(cache.states(0).conv.shape(), (Shape{5, 3, 112}));
  EXPECT_EQ(cache.states(2).matrices.shape(), (Shape{5, 4, 24, 16}));
  EXPECT_EQ(cache.states(2).matrices.dtype(), DType::f32);
  EXPECT_FALSE(cache.states(1).conv.defined());
  EXPECT_EQ(KvCache::bytes_per_state(config, DType::bf16), 2 * (3 * 112 * 2 + 4 * 24 * 16 * 4));
  EXPECT_FALSE(config_of(golden_json("tiny_granite4/dense/config.json")).has_states());
}

// What decides how much Mamba-2 forgets, and D, stay in f32.
TEST(GraniteHybrid, ExponentsAreHeldInF32) {
  Transformer model = load(golden("tiny_granite4/hybrid"), DType::bf16, WeightMode::trainable);
  int64_t exact = 0;
  for (const Parameter& parameter : model.trainable_parameters()) {
    const bool wide =
        parameter.name.ends_with("A_log") || parameter.name.ends_with("mamba.D") || parameter.name.ends_with("dt_bias");
    EXPECT_EQ(parameter.leaf.value().dtype(), wide ? DType::f32 : DType::bf16) << parameter.name;
    exact += wide ? 1 : 0;
  }
  EXPECT_EQ(exact, 2 * 3);
}

// The same weights of the same shapes, to the bit but for A_log, which goes through exp and log.
void expect_same_weights(const WeightSource& found, const WeightSource& expected, const std::string& exponents) {
  ASSERT_EQ(found.weights().size(), expected.weights().size());
  for (const WeightInfo& info : expected.weights()) {
    SCOPED_TRACE(info.name);
    const WeightInfo* other = found.find(info.name);
    ASSERT_NE(other, nullptr);
    ASSERT_EQ(other->shape, info.shape);
    const int64_t columns = info.shape[-1], rows = info.shape.numel() / columns;
    std::vector<float> a(static_cast<size_t>(rows * columns)), b(a.size());
    found.read_rows(info.name, 0, rows, a.data());
    expected.read_rows(info.name, 0, rows, b.data());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], info.name.ends_with(exponents) ? 1e-6f : 0.0f);
  }
}

class GraniteHybridGguf : public testing::TestWithParam<const char*> {
 protected:
  const std::string model_ = GetParam();
  const TemporaryFolder folder_;

  std::filesystem::path written(const char* type) const {
    const ModelFiles files = open_model_files(golden(model_));
    const GgufModel made = gguf_model_of(files, *ggml_writer(type));
    const std::filesystem::path path = folder_.path() / (std::string(type) + ".gguf");
    write_gguf(path, made.metadata, made.tensors);
    return path;
  }
};

INSTANTIATE_TEST_SUITE_P(, GraniteHybridGguf,
                         testing::Values("tiny_granite4/dense", "tiny_granite4/hybrid", "tiny_granite4/experts"));

TEST_P(GraniteHybridGguf, HasTheDirectorysWeights) {
  const ModelFiles directory = open_model_files(golden(model_)),
                   gguf = open_model_files(golden(model_ + "/model.gguf"));
  expect_same_weights(*gguf.weights, *directory.weights, "A_log");
  EXPECT_EQ(attending(gguf.config), attending(directory.config));
  for (size_t i = 0; i < gguf.config.layers.size(); ++i)
    EXPECT_EQ(gguf.config.layers[i].rope, directory.config.layers[i].rope);
  EXPECT_EQ(gguf.config.mamba2.conv_bias || !gguf.config.has_states(),
            directory.config.mamba2.conv_bias || !directory.config.has_states());
}

TEST_P(GraniteHybridGguf, IsWhatThePackagesConverterWrites) {
  const auto found = GgufFile::open(written("F32")), expected = GgufFile::open(golden(model_ + "/model.gguf"));
  expect_same_weights(*open_gguf_weights(found, {}), *open_gguf_weights(expected, {}), "ssm_a");
  for (const auto& [key, value] : expected->metadata()) {
    if (!key.starts_with("granitehybrid.")) continue;
    const auto there = found->metadata().find(key);
    ASSERT_NE(there, found->metadata().end()) << key;
    EXPECT_EQ(there->second, value) << key;
  }
}

// A linear whose rows are two tensors' is read where they lie.
TEST_P(GraniteHybridGguf, BlocksOfBothHalvesAreThoseOfTheRows) {
  const ModelFiles quantised = open_model_files(written("Q8_0"));
  const std::string name = "model.layers.1.shared_mlp.input_linear.weight";
  const auto blocks = quantised.weights->blocks(name);
  ASSERT_TRUE(blocks.has_value());
  ASSERT_EQ(blocks->rows.size(), 80u);
  const GgmlType* const type = ggml_type(ggml_writer("Q8_0")->id);
  std::vector<float> rows(80 * 32), row(32), some(3 * 32);
  quantised.weights->read_rows(name, 0, 80, rows.data());
  for (size_t i = 0; i < 80; ++i) {
    type->dequantize(blocks->rows[i], 1, row.data());
    for (size_t j = 0; j < 32; ++j) EXPECT_EQ(row[j], rows[i * 32 + j]) << i << ", " << j;
  }
  quantised.weights->read_rows(name, 38, 3, some.data());
  EXPECT_EQ(some, std::vector<float>(rows.begin() + 38 * 32, rows.begin() + 41 * 32)) << "across the halves";
  EXPECT_THROW(quantised.weights->read_rows(name, 79, 2, some.data()), ShapeError);
}

// As in files of mixed formats, and in files that are broken.
TEST(GgufHalves, OfTwoTypesAreReadByRowsAndOfTwoShapesRefused) {
  const TemporaryFolder folder;
  const GgufPlaces places = {{"gate", {.name = "w", .half = GgufPlace::Half::first}},
                             {"up", {.name = "w", .half = GgufPlace::Half::second}}};
  const auto open = [&](std::initializer_list<std::tuple<const char*, Shape, const char*>> tensors) {
    std::vector<GgufTensorToWrite> written;
    for (const auto& [name, shape, type] : tensors)
      written.push_back({{name, shape,
                          [columns = shape[1], value = name[0] == 'u' ? 2.0f : 127.0f](
                              int64_t, int64_t count, float* out) { std::fill_n(out, count * columns, value); }},
                         ggml_writer(type)});
    write_gguf(folder.path() / "model.gguf", {{"general.architecture", std::string("none")}}, written);
    return open_gguf_weights(GgufFile::open(folder.path() / "model.gguf"), places);
  };
  const auto mixed = open({{"up", {2, 32}, "F16"}, {"gate", {2, 32}, "Q8_0"}});
  ASSERT_NE(mixed->find("w"), nullptr);
  EXPECT_EQ(mixed->find("w")->shape, (Shape{4, 32}));
  EXPECT_FALSE(mixed->blocks("w").has_value());
  std::vector<float> rows(4 * 32);
  mixed->read_rows("w", 0, 4, rows.data());
  EXPECT_EQ(std::ranges::count(std::span(rows).first(64), 127.0f), 64) << "gate's";
  EXPECT_EQ(std::ranges::count(std::span(rows).last(64), 2.0f), 64) << "up's";
  EXPECT_THROW(open({{"gate", {2, 32}, "F32"}, {"up", {3, 32}, "F32"}}), FormatError);
  EXPECT_THROW(open({{"gate", {2, 32}, "F32"}, {"up", {2, 64}, "F32"}}), FormatError);
  EXPECT_THROW(open({{"up", {2, 32}, "F32"}}), FormatError);
  EXPECT_EQ(open({{"gate", {2, 32}, "F32"}})->find("w")->shape, (Shape{2, 32})) << "for the loader to refuse";
}

// What GGUF has no key for.
TEST(GraniteHybrid, OptionsThatGgufHasNotAreRefused) {
  for (const auto& [key, value, named] : std::vector<std::tuple<const char*, nlohmann::json, const char*>>{
           {"mamba_proj_bias", true, "mamba_proj_bias"},
           {"attention_bias", true, "attention_bias"},
           {"time_step_limit", {0.1, 1.0}, "time_step_"}}) {
    nlohmann::json json = hybrid_json();
    json[key] = value;
    ModelFiles files = open_model_files(golden("tiny_granite4/hybrid"));
    files.config = config_of(json);
    try {
      gguf_model_of(files, *ggml_writer("F32"));
      FAIL() << key;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  }
}

// What is written as a directory is read as the same model.
TEST(GraniteHybrid, AConfigIsWrittenAsItIsRead) {
  for (const char* model : {"dense", "hybrid", "experts"}) {
    SCOPED_TRACE(model);
    const ModelConfig config = open_model_files(golden(std::string("tiny_granite4/") + model)).config;
    const ModelConfig again = config_of(nlohmann::json::parse(hf_config_of(config, DType::f32).dump()));
    EXPECT_EQ(attending(again), attending(config));
    EXPECT_EQ(again.parameter_count(), config.parameter_count());
    EXPECT_EQ(again.layers[0].rope, config.layers[0].rope);
    EXPECT_EQ(again.mamba2.taps, config.mamba2.taps);
    EXPECT_EQ(again.residual_multiplier, config.residual_multiplier);
    EXPECT_EQ(again.experts.shared.intermediate_size, config.experts.shared.intermediate_size);
  }
}

}  // namespace
}  // namespace lathe::nn
