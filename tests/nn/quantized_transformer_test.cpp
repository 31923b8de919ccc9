// A transformer whose linears are codes: it is the one whose weights are what the codes stand for.
#include <gtest/gtest.h>

#include <cstring>

#include "autograd/ops/linear_cross_entropy.h"
#include "core/memory.h"
#include "kernels/copy/copy.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/layer_layout.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

using kernels::QuantizedFormat;

// A model's weights with those of its linears quantised and dequantised in f32.
class RoundedWeights final : public WeightSource {
 public:
  RoundedWeights(const WeightSource& source, QuantizedFormat format) : source_(source), format_(format) {}
  const std::vector<WeightInfo>& weights() const override { return source_.weights(); }
  const WeightInfo* find(std::string_view name) const override { return source_.find(name); }
  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    if (name.find("_proj") == std::string_view::npos) return source_.read_rows(name, first, count, out);
    const Shape& shape = source_.find(name)->shape;
    const Tensor values = Tensor::empty(shape, DType::f32), back = Tensor::empty(shape, DType::f32);
    source_.read_rows(name, 0, shape[0], values.data<float>());
    if (format_ == QuantizedFormat::nf4) {
      kernels::nf4_dequantize(back, kernels::quantize_nf4(values));
    } else {
      kernels::int8_dequantize(back, kernels::quantize_int8(values));
    }
    std::memcpy(out, back.data<float>() + first * shape[1], static_cast<size_t>(count * shape[1]) * sizeof(float));
  }

 private:
  const WeightSource& source_;
  QuantizedFormat format_;
};

class QuantizedTransformer : public testing::TestWithParam<QuantizedFormat> {
 protected:
  const Quantization quantization{GetParam(), kernels::Nf4Scales::nested};
  ModelFiles files = open_model_files(golden("tiny_llama/untied"));
  RoundedWeights rounded{*files.weights, GetParam()};
  std::vector<std::vector<int32_t>> ids = golden_json("tiny_llama/untied/expected.json")["input_ids"];

  Transformer coded(DType dtype) const {
    return Transformer(files.config, *files.weights, {.dtype = dtype, .quantized_linears = quantization});
  }
  Transformer dense(DType dtype) const { return Transformer(files.config, rounded, {.dtype = dtype}); }
};

TEST_P(QuantizedTransformer, LogitsAreThoseOfTheWeightsThatTheCodesStandFor) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor logits = logits_of(coded(dtype), ids);
    EXPECT_EQ(largest_difference(logits, logits_of(dense(dtype), ids)), 0.0);
    EXPECT_GT(largest_difference(logits, logits_of(load(golden("tiny_llama/untied"), dtype), ids)), 0.0)
        << "nothing was quantised";
  }
}

// One step of QLoRA: the adapter's gradients are those beside the dense weights, to the bit.
TEST_P(QuantizedTransformer, AnAdapterGetsTheGradientsOfTheDenseWeights) {
  const auto gradients = [&](Transformer model) {
    LoraConfig config;
    config.target_modules = {"q_proj", "down_proj"};
    model.add_lora(config, 5);
    std::vector<int32_t> labels(ids[1].begin() + 1, ids[1].end());
    labels.push_back(kernels::ignored_label);
    const TokenBatch batch = make_token_batch(ids[1], std::vector<int32_t>{static_cast<int32_t>(ids[1].size())});
    PackedAttention attention(model.config(), batch.layout);
    const auto result = autograd::linear_cross_entropy(
        model.forward(batch, attention), model.output_weight(),
        Tensor::of<int32_t>(labels, {static_cast<int64_t>(labels.size())}), batch.layout, 0.1f);
    autograd::backward(result.loss);
    std::vector<Tensor> found;
    for (const Parameter& parameter : model.trainable_parameters())
      found.push_back(kernels::cast(parameter.leaf.grad(), DType::f32));
    return found;
  };
  const std::vector<Tensor> found = gradients(coded(DType::f32)), expected = gradients(dense(DType::f32));
  ASSERT_EQ(found.size(), expected.size());
  ASSERT_EQ(found.size(), 8u);  // A and B of two linears in two layers
  for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(largest_difference(found[i], expected[i]), 0.0) << i;
}

// The peak while loading: all that stays, and one linear in f32 with its codes.
TEST_P(QuantizedTransformer, LoadingHoldsOneDenseLinearAtATime) {
  Allocator& memory = allocator_for({});
  const int64_t before = memory.stats().total_live_bytes;
  memory.reset_peak();
  const Transformer model = coded(DType::bf16);
  const MemoryStats stats = memory.stats();
  const int64_t largest = files.config.intermediate_size * files.config.hidden_size;
  constexpr double rounding = 1.25;  // of the allocator's classes
  EXPECT_LE(static_cast<double>(stats.total_peak_bytes - stats.total_live_bytes), rounding * (4 + 1.5) * largest);
  int64_t linears = 0;
  for (int64_t layer = 0; layer < files.config.num_hidden_layers(); ++layer)
    for (const LinearShape& linear : layer_layout(files.config, layer).linears())
      linears += linear_bytes(linear, DType::bf16, quantization, {});
  const int64_t dense = 2 * 2 * files.config.vocab_size * files.config.hidden_size;  // the embedding, the output
  EXPECT_LE(static_cast<double>(stats.total_live_bytes - before),
            rounding * static_cast<double>(linears + dense) + 65536);
}

TEST_P(QuantizedTransformer, CodesAreNotTrained) {
  EXPECT_THROW(
      Transformer(files.config, *files.weights, {.weights = WeightMode::trainable, .quantized_linears = quantization}),
      ConfigError);
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizedTransformer, testing::Values(QuantizedFormat::nf4, QuantizedFormat::int8),
                         [](const auto& info) { return info.param == QuantizedFormat::nf4 ? "nf4" : "int8"; });

}  // namespace
}  // namespace lathe::nn
