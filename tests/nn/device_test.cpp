// The tiny Llama on simt, and on a card where there is one, against the CPU: the same numbers up to the rounding of the
// dtype.
//
// The bound: both are compared with the model in f64, and the device may be off by three times what the CPU is off in
// the same dtype (FlashAttention's rule, in the norm over a tensor), plus the dtype's own rounding of the result.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/ops/token_logprobs.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/nn/golden_models.h"

namespace lathe::nn {
namespace {

std::vector<Device> devices() {
  std::vector<Device> found{{DeviceKind::simt}};
  if (const Device card{DeviceKind::cuda}; kernels::why_unavailable(card).empty()) found.push_back(card);
  return found;
}

Transformer tiny(DType dtype, Device device, WeightMode mode = WeightMode::frozen,
                 const std::string& folder = "tiny_llama/untied") {
  const ModelFiles files = open_model_files(golden(folder));
  return Transformer(files.config, *files.weights,
                     {.dtype = dtype, .weights = mode, .max_positions = 64, .device = device});
}

std::vector<double> values_of(const Tensor& tensor) {
  const Tensor on_cpu = kernels::moved(tensor, {});
  const Tensor wide = kernels::cast(on_cpu, DType::f64);
  const auto values = wide.span<double>();
  return {values.begin(), values.end()};
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

double norm(const std::vector<double>& a) { return distance(a, std::vector<double>(a.size())); }

double roundoff(DType dtype) { return dtype == DType::bf16 ? 0x1p-9 : 0x1p-24; }

void expect_within(const Tensor& on_device, const Tensor& on_cpu, const Tensor& reference, DType dtype,
                   const std::string& what) {
  const std::vector<double> exact = values_of(reference);
  const double allowed =
      3 * allowance_of_heads(what) * distance(values_of(on_cpu), exact) + roundoff(dtype) * norm(exact);
  EXPECT_LE(distance(values_of(on_device), exact), allowed) << what << ", of a norm of " << norm(exact);
}

// Two sequences, one of a single token; 23 tokens in all.
const std::vector<std::vector<int32_t>>& sequences() {
  static const std::vector<std::vector<int32_t>> made = [] {
    std::vector<std::vector<int32_t>> all(2);
    for (int i = 0; i < 22; ++i) all[0].push_back((i * 37 + 11) % 96);
    all[1] = {5};
    return all;
  }();
  return made;
}

class OnDevice : public testing::TestWithParam<Device> {};

TEST_P(OnDevice, LogitsAreTheCpus) {
  const Tensor reference = logits_of(tiny(DType::f64, {}), sequences());
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor logits = logits_of(tiny(dtype, GetParam()), sequences());
    EXPECT_EQ(logits.device(), GetParam());
    expect_within(logits, logits_of(tiny(dtype, {}), sequences()), reference, dtype, std::string(name_of(dtype)));
  }
}

// A row's bits do not depend on what else is in the batch.
TEST_P(OnDevice, ASequenceAloneHasTheSameBits) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Transformer model = tiny(dtype, GetParam());
    const std::vector<double> both = values_of(logits_of(model, sequences()));
    std::vector<double> apart;
    for (const auto& sequence : sequences()) {
      const std::vector<double> alone = values_of(logits_of(model, {sequence}));
      apart.insert(apart.end(), alone.begin(), alone.end());
    }
    EXPECT_EQ(apart, both) << name_of(dtype);
  }
}

struct Trained {
  double loss;
  std::vector<std::pair<std::string, Tensor>> gradients;
};

Trained train(Transformer model, bool checkpointed) {
  std::vector<int32_t> ids, labels, lengths;
  for (const auto& sequence : sequences()) {
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    labels.insert(labels.end(), sequence.begin() + 1, sequence.end());
    labels.push_back(kernels::ignored_label);
    lengths.push_back(static_cast<int32_t>(sequence.size()));
  }
  const TokenBatch batch = make_token_batch(ids, lengths);
  PackedAttention attention(model.config(), batch.layout);
  const ForwardOptions options{.checkpoint_layers = checkpointed,
                               .adapter = {.dropout_seed = 3, .dropout_step = 1, .training = true}};
  const auto result = autograd::linear_cross_entropy(model.forward(batch, attention, options), model.output_weight(),
                                                     Tensor::of<int32_t>(labels, {static_cast<int64_t>(labels.size())}),
                                                     batch.layout, 1.0 / 21, model.softcap());
  autograd::backward(result.loss);
  Trained trained{values_of(result.loss.value())[0], {}};
  for (const Parameter& parameter : model.trainable_parameters())
    trained.gradients.emplace_back(parameter.name, parameter.leaf.grad());
  return trained;
}

void expect_trained_alike(const Trained& found, const Trained& on_cpu, const Trained& reference, DType dtype) {
  EXPECT_LE(std::abs(found.loss - reference.loss),
            3 * std::abs(on_cpu.loss - reference.loss) + 8 * roundoff(dtype) * reference.loss);
  ASSERT_EQ(found.gradients.size(), reference.gradients.size());
  for (size_t i = 0; i < found.gradients.size(); ++i)
    expect_within(found.gradients[i].second, on_cpu.gradients[i].second, reference.gradients[i].second, dtype,
                  std::string(name_of(dtype)) + ", gradient of " + reference.gradients[i].first);
}

TEST_P(OnDevice, EveryGradientOfEveryWeightIsTheCpus) {
  const auto mode = WeightMode::trainable;
  expect_trained_alike(train(tiny(DType::f32, GetParam(), mode), false), train(tiny(DType::f32, {}, mode), false),
                       train(tiny(DType::f64, {}, mode), false), DType::f32);
}

// Of ranks that are multiples of eight, dropout of 16 bits has bodies of its own (kernels/lora_dropout/).
Transformer with_lora(DType dtype, Device device, int64_t rank = 4, const std::string& folder = "tiny_llama/untied") {
  Transformer model = tiny(dtype, device, WeightMode::frozen, folder);
  PeftAdapter adapter = [&] {
    Transformer plain = tiny(DType::f32, {}, WeightMode::frozen, folder);
    LoraConfig config;
    config.r = rank;
    config.lora_dropout = 0.1;
    config.target_modules_regex = "all-linear";
    plain.add_lora(config, 7);
    return plain.adapter();
  }();
  for (auto& [name, module] : adapter.modules) {  // B that is not zero, so that A has a gradient
    int i = 0;
    for (float& value : module.b.span<float>()) value = 0.05f * static_cast<float>(std::sin(++i));
  }
  model.load_adapter(adapter);
  return model;
}

TEST_P(OnDevice, EveryGradientOfAnAdapterIsTheCpusWithRecomputedLayersAndDropout) {
  for (const auto& [dtype, rank] : {std::pair{DType::f32, 4}, std::pair{DType::bf16, 4}, std::pair{DType::bf16, 8}}) {
    const Trained reference = train(with_lora(DType::f64, {}, rank), false),
                  on_cpu = train(with_lora(dtype, {}, rank), false);
    const Trained plain = train(with_lora(dtype, GetParam(), rank), false),
                  recomputed = train(with_lora(dtype, GetParam(), rank), true);
    expect_trained_alike(plain, on_cpu, reference, dtype);
    for (size_t i = 0; i < plain.gradients.size(); ++i)
      EXPECT_EQ(values_of(recomputed.gradients[i].second), values_of(plain.gradients[i].second))
          << plain.gradients[i].first;
  }
}

// Through frozen experts, whose rows stay on the device.
TEST_P(OnDevice, EveryGradientOfAnAdapterBesideAMixtureIsTheCpusAndTheSameWhenLayersAreRecomputed) {
  for (const char* folder : {"tiny_mixtral", "tiny_qwen3_moe/all"}) {
    SCOPED_TRACE(folder);
    const auto trained = [&](DType dtype, Device device, bool checkpointed) {
      return train(with_lora(dtype, device, 4, folder), checkpointed);
    };
    const Trained plain = trained(DType::bf16, GetParam(), false), recomputed = trained(DType::bf16, GetParam(), true);
    expect_trained_alike(plain, trained(DType::bf16, {}, false), trained(DType::f64, {}, false), DType::bf16);
    for (size_t i = 0; i < plain.gradients.size(); ++i)
      EXPECT_EQ(values_of(recomputed.gradients[i].second), values_of(plain.gradients[i].second))
          << plain.gradients[i].first;
  }
}

TEST_P(OnDevice, TheAdapterComesBackToTheCpuBitForBit) {
  const PeftAdapter there = with_lora(DType::bf16, GetParam()).adapter(), here = with_lora(DType::bf16, {}).adapter();
  ASSERT_EQ(there.modules.size(), here.modules.size());
  for (const auto& [name, module] : here.modules) {
    EXPECT_EQ(largest_difference(there.modules.at(name).a, module.a), 0.0);
    EXPECT_EQ(largest_difference(there.modules.at(name).b, module.b), 0.0);
  }
}

TEST_P(OnDevice, F64IsForTheCpu) { EXPECT_THROW(tiny(DType::f64, GetParam()), ConfigError); }

// What a family computes that Llama does not: caps, fused projections, other norms and factors, experts.
class FamilyOnDevice : public testing::TestWithParam<const char*> {};

TEST_P(FamilyOnDevice, LogitsAreTheCpusAndASequenceAloneHasTheSameBits) {
  const auto model = [](DType dtype, Device device) { return tiny(dtype, device, WeightMode::frozen, GetParam()); };
  const Tensor reference = logits_of(model(DType::f64, {}), sequences());
  for (const Device device : devices())
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Transformer there = model(dtype, device);
      const Tensor logits = logits_of(there, sequences());
      expect_within(logits, logits_of(model(dtype, {}), sequences()), reference, dtype, std::string(name_of(dtype)));
      const std::vector<double> first = values_of(logits_of(there, {sequences()[0]}));
      const std::vector<double> both = values_of(logits);
      EXPECT_TRUE(std::equal(first.begin(), first.end(), both.begin())) << name_of(dtype);
    }
}

TEST_P(FamilyOnDevice, EveryGradientOfEveryWeightIsTheCpus) {
  const auto trained = [](DType dtype, Device device) {
    return train(tiny(dtype, device, WeightMode::trainable, GetParam()), false);
  };
  for (const Device device : devices())
    expect_trained_alike(trained(DType::f32, device), trained(DType::f32, {}), trained(DType::f64, {}), DType::f32);
}

// What is sampled from, and what GRPO trains on: one cap, the same bits.
TEST(SoftCap, LogProbabilitiesOfTheLogitsAreThoseOfTraining) {
  const float temperature = 0.7f;
  for (const Device device : {devices().front(), Device{}}) {
    const Transformer model = tiny(DType::f32, device, WeightMode::frozen, "tiny_gemma2");
    const auto length = static_cast<int32_t>(sequences()[0].size());
    const TokenBatch batch = make_token_batch(sequences()[0], std::span(&length, 1));
    PackedAttention attention(model.config(), batch.layout);
    const autograd::NoGradScope no_grad;
    const autograd::Variable hidden = model.forward(batch, attention);
    const Tensor targets = Tensor::of<int32_t>(sequences()[0], {length});
    const Tensor sampled = Tensor::empty({length}, DType::f32, device);
    kernels::token_logprobs(sampled, model.logits(hidden.value(), temperature), targets);
    const autograd::Variable trained =
        autograd::token_logprobs(hidden, model.output_weight(), targets, batch.layout, model.softcap(), temperature);
    EXPECT_EQ(values_of(sampled), values_of(trained.value())) << to_string(device);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, FamilyOnDevice, testing::ValuesIn(tiny_models));

INSTANTIATE_TEST_SUITE_P(Every, OnDevice, testing::ValuesIn(devices()),
                         [](const auto& info) { return to_string(info.param).substr(0, 4); });

}  // namespace
}  // namespace lathe::nn
