// The transformer against transformers: logits, the loss and every gradient of tiny random models, of every family.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/copy/copy.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

struct Expected {
  std::vector<std::vector<int32_t>> ids, labels;
  std::shared_ptr<const SafetensorsFile> tensors;
  double loss;
  int64_t label_count;
};

Expected expected_of(const std::string& folder) {
  const nlohmann::json json = golden_json(folder + "/expected.json");
  return {json["input_ids"].get<std::vector<std::vector<int32_t>>>(),
          json["labels"].get<std::vector<std::vector<int32_t>>>(),
          SafetensorsFile::open(golden(folder + "/expected.safetensors")), json["loss"].get<double>(),
          json["num_labels"].get<int64_t>()};
}

class TinyModel : public testing::TestWithParam<const char*> {};

TEST_P(TinyModel, LogitsAreThoseOfTransformers) {
  const Expected expected = expected_of(GetParam());
  for (const WeightMode mode : {WeightMode::frozen, WeightMode::trainable}) {
    const Transformer model = load(golden(GetParam()), DType::f32, mode);
    const Tensor logits = logits_of(model, expected.ids);
    int64_t row = 0;
    for (size_t i = 0; i < expected.ids.size(); ++i) {
      const auto length = static_cast<int64_t>(expected.ids[i].size());
      const Tensor part = kernels::cast(logits.slice(0, row, row + length), DType::f32);
      EXPECT_LE(largest_difference(part, expected.tensors->tensor("logits." + std::to_string(i))), 1e-4);
      row += length;
    }
  }
}

// Frozen weights are packed once, trainable ones on the fly: the bits must not tell.
TEST_P(TinyModel, FrozenAndTrainableWeightsGiveTheSameBits) {
  const auto ids = expected_of(GetParam()).ids;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto path = golden(GetParam());
    const Tensor frozen = logits_of(load(path, dtype), ids);
    EXPECT_EQ(largest_difference(frozen, logits_of(load(path, dtype, WeightMode::trainable), ids)), 0.0);
  }
}

TEST_P(TinyModel, LossAndEveryGradientAreThoseOfTransformers) {
  const Expected expected = expected_of(GetParam());
  for (const bool checkpointed : {false, true}) {
    Transformer model = load(golden(GetParam()), DType::f32, WeightMode::trainable);
    const double loss = backward_through(model, expected.ids, expected.labels, expected.label_count, checkpointed);
    EXPECT_NEAR(loss, expected.loss, 1e-5 * expected.loss);
    size_t compared = 0;
    for (const Parameter& parameter : model.trainable_parameters()) {
      const Tensor wanted = expected.tensors->tensor("grad." + parameter.name);
      EXPECT_LE(largest_difference(parameter.leaf.grad(), wanted), 1e-4 * norm(wanted)) << parameter.name;
      ++compared;
    }
    // Every gradient that the peer has: all names but the three logits.
    EXPECT_EQ(compared, expected.tensors->names().size() - 3);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, TinyModel,
                         testing::Values("tiny_llama/untied", "tiny_llama/tied", "tiny_qwen3/untied", "tiny_qwen3/tied",
                                         "tiny_qwen3/options", "tiny_llama31", "tiny_qwen2/plain", "tiny_qwen2/windows",
                                         "tiny_mistral/window", "tiny_mistral/nemo", "tiny_gemma3", "tiny_smollm3",
                                         "tiny_phi3/longrope", "tiny_phi3/window", "tiny_gemma2", "tiny_olmo2",
                                         "tiny_granite", "tiny_mixtral", "tiny_qwen3_moe/some", "tiny_qwen3_moe/all"));

class GreedyTokens : public testing::TestWithParam<const char*> {};

TEST_P(GreedyTokens, AreThoseOfTransformers) {
  const nlohmann::json greedy = golden_json(std::string(GetParam()) + "/expected.json")["greedy"];
  auto ids = greedy["prompt"].get<std::vector<int32_t>>();
  const auto expected = greedy["tokens"].get<std::vector<int32_t>>();
  ASSERT_EQ(expected.size(), 32u);
  const Transformer model = load(golden(GetParam()), DType::f32);
  for (const int32_t token : expected) {
    const Tensor logits = logits_of(model, {ids});
    const auto last = logits.span<float>().last(static_cast<size_t>(model.config().vocab_size));
    ASSERT_EQ(std::max_element(last.begin(), last.end()) - last.begin(), token) << "after " << ids.size();
    ids.push_back(token);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, GreedyTokens,
                         testing::Values("tiny_phi3/longrope", "tiny_phi3/window", "tiny_gemma2", "tiny_olmo2",
                                         "tiny_granite", "tiny_mixtral", "tiny_qwen3_moe/some", "tiny_qwen3_moe/all"));

// With two rotary tables, what counts is which table a layer names, not where it stands in the list.
TEST(Transformer, EachLayerTurnsByItsOwnRotaryTable) {
  const ModelFiles files = open_model_files(golden("tiny_llama/untied"));
  const auto logits_with = [&](std::vector<RopeConfig> ropes, int64_t first, int64_t second) {
    ModelConfig config = files.config;
    config.ropes = std::move(ropes);
    config.layers[0].rope = first;
    config.layers[1].rope = second;
    return logits_of(Transformer(config, *files.weights, {}), expected_of("tiny_llama/untied").ids);
  };
  const RopeConfig wide{.theta = 10000.0, .scaling = {}}, narrow{.theta = 50.0, .scaling = {}};
  const Tensor mixed = logits_with({wide, narrow}, 0, 1);
  EXPECT_EQ(largest_difference(mixed, logits_with({narrow, wide}, 1, 0)), 0.0);
  EXPECT_GT(largest_difference(mixed, logits_with({wide, narrow}, 1, 0)), 1e-2);
  EXPECT_GT(largest_difference(mixed, logits_with({wide}, 0, 0)), 1e-2);
}

// A window that reaches the first token hides nothing.
TEST(Transformer, AWindowThatReachesTheFirstTokenChangesNoBit) {
  const ModelFiles files = open_model_files(golden("tiny_llama/untied"));
  const auto ids = expected_of("tiny_llama/untied").ids;
  const auto logits_with = [&](int64_t window) {
    ModelConfig config = files.config;
    config.layers[1].sliding_window = window;
    return logits_of(Transformer(config, *files.weights, {}), ids);
  };
  const auto longest = static_cast<int64_t>(ids[2].size());
  EXPECT_EQ(largest_difference(logits_with(0), logits_with(longest)), 0.0);
  EXPECT_GT(largest_difference(logits_with(0), logits_with(longest - 1)), 0.0);
}

TEST(Transformer, AMissingWeightIsNamed) {
  const ModelFiles files = open_model_files(golden("tiny_llama/tied"));
  ModelConfig config = files.config;
  config.tie_word_embeddings = false;
  try {
    Transformer model(config, *files.weights, {});
    FAIL() << "a model without its output embedding was accepted";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("lm_head.weight is missing"), std::string::npos) << error.what();
  }
}

TEST(Transformer, WeightsThatBelongNowhereAreNamed) {
  const ModelFiles files = open_model_files(golden("tiny_llama/untied"));
  ModelConfig config = files.config;
  config.layers.resize(1);
  try {
    Transformer model(config, *files.weights, {});
    FAIL() << "a second layer's weights were ignored";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("model.layers.1."), std::string::npos) << error.what();
  }
}

TEST(Transformer, AWrongShapeIsNamed) {
  const ModelFiles files = open_model_files(golden("tiny_llama/untied"));
  ModelConfig config = files.config;
  config.intermediate_size += 1;
  EXPECT_THROW(Transformer(config, *files.weights, {}), FormatError);
}

}  // namespace
}  // namespace lathe::nn
