// The transformer against transformers: logits, the loss and every gradient of a tiny random Llama.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops/linear_cross_entropy.h"
#include "kernels/copy/copy.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
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

Expected expected_of(const std::string& variant) {
  const nlohmann::json json = golden_json("tiny_llama/" + variant + "/expected.json");
  return {json["input_ids"].get<std::vector<std::vector<int32_t>>>(), json["labels"].get<std::vector<std::vector<int32_t>>>(),
          SafetensorsFile::open(golden("tiny_llama/" + variant + "/expected.safetensors")), json["loss"].get<double>(),
          json["num_labels"].get<int64_t>()};
}

double norm(const Tensor& tensor) {
  double sum = 0;
  for (const float value : tensor.span<float>()) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

class TinyLlama : public testing::TestWithParam<const char*> {};

TEST_P(TinyLlama, LogitsAreThoseOfTransformers) {
  const Expected expected = expected_of(GetParam());
  for (const WeightMode mode : {WeightMode::frozen, WeightMode::trainable}) {
    const Transformer model = load(golden(std::string("tiny_llama/") + GetParam()), DType::f32, mode);
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
TEST_P(TinyLlama, FrozenAndTrainableWeightsGiveTheSameBits) {
  const auto ids = expected_of(GetParam()).ids;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto path = golden(std::string("tiny_llama/") + GetParam());
    const Tensor frozen = logits_of(load(path, dtype), ids);
    EXPECT_EQ(largest_difference(frozen, logits_of(load(path, dtype, WeightMode::trainable), ids)), 0.0);
  }
}

TEST_P(TinyLlama, LossAndEveryGradientAreThoseOfTransformers) {
  const Expected expected = expected_of(GetParam());
  for (const bool checkpointed : {false, true}) {
    Transformer model = load(golden(std::string("tiny_llama/") + GetParam()), DType::f32, WeightMode::trainable);
    std::vector<int32_t> ids, labels, lengths;
    for (size_t i = 0; i < expected.ids.size(); ++i) {
      ids.insert(ids.end(), expected.ids[i].begin(), expected.ids[i].end());
      labels.insert(labels.end(), expected.labels[i].begin() + 1, expected.labels[i].end());
      labels.push_back(kernels::ignored_label);
      lengths.push_back(static_cast<int32_t>(expected.ids[i].size()));
    }
    const TokenBatch batch = make_token_batch(ids, lengths);
    PackedAttention attention(model.config(), batch.layout);
    ForwardOptions options;
    options.checkpoint_layers = checkpointed;
    const auto result = autograd::linear_cross_entropy(
        model.forward(batch, attention, options), model.output_weight(),
        Tensor::of<int32_t>(labels, {static_cast<int64_t>(labels.size())}), batch.layout,
        1.0f / static_cast<float>(expected.label_count));
    EXPECT_NEAR(result.loss.value().data<float>()[0], expected.loss, 1e-5 * expected.loss);
    autograd::backward(result.loss);
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

INSTANTIATE_TEST_SUITE_P(Golden, TinyLlama, testing::Values("untied", "tied"));

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
