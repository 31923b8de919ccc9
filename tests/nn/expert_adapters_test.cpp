// Adapters of experts, on every family that has them: by rows, in batches, merged, and what is refused. That they train
// as PEFT's do, and are written as PEFT writes them, is in family_adapters_test.cpp.
#include "nn/expert_adapters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <stdexcept>

#include "kernels/copy/copy.h"
#include "nn/adapter.h"
#include "nn/merge_adapter.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

struct Model {
  const char *name, *adapter;
};

class ExpertAdapters : public testing::TestWithParam<Model> {
 protected:
  static Transformer base(DType dtype = DType::f32) { return load(golden(GetParam().name), dtype); }
  static PeftAdapter given() { return read_peft_adapter(golden(std::string("family_adapters/") + GetParam().adapter)); }
  // The same with B twice as large.
  static PeftAdapter other() {
    PeftAdapter adapter = given();
    adapter.config.lora_alpha *= 2;
    return adapter;
  }
};

using Ids = std::vector<int32_t>;
const std::vector<Ids> sequences = {{5, 9, 33, 17, 60, 2, 71}, {80}, {41, 40, 3, 3, 12}, {8, 88, 21, 64, 90, 11}};
const std::vector<std::string> mixed = {"one", "", "two", "one"};

TokenBatch batch_of(const std::vector<size_t>& numbers, std::vector<std::string> adapters) {
  Ids ids, lengths;
  for (const size_t number : numbers) {
    ids.insert(ids.end(), sequences[number].begin(), sequences[number].end());
    lengths.push_back(static_cast<int32_t>(sequences[number].size()));
  }
  TokenBatch batch = make_token_batch(ids, lengths);
  batch.adapters = std::move(adapters);
  return batch;
}

std::string bytes_of(const Tensor& tensor) {
  return {static_cast<const char*>(tensor.raw()), static_cast<size_t>(tensor.nbytes())};
}

// The hidden states of each sequence.
std::vector<std::string> forward_bytes(const Transformer& model, const TokenBatch& batch) {
  const autograd::NoGradScope no_grad;
  PackedAttention attention(model.config(), batch.layout);
  const Tensor hidden = model.forward(batch, attention).value();
  const auto bounds = batch.layout.cu_seqlens.span<int32_t>();
  std::vector<std::string> all;
  for (size_t s = 0; s + 1 < bounds.size(); ++s) all.push_back(bytes_of(hidden.slice(0, bounds[s], bounds[s + 1])));
  return all;
}

// The adapter's gradients, to which those of the batches are added one after the other.
std::map<std::string, std::string> gradients(Transformer& model, const std::string& adapter,
                                             const std::vector<TokenBatch>& batches) {
  std::vector<Parameter> parameters = model.trainable_parameters(adapter);
  for (const Parameter& parameter : parameters) parameter.leaf.zero_grad();
  for (const TokenBatch& batch : batches) {
    PackedAttention attention(model.config(), batch.layout);
    autograd::backward(autograd::linear_cross_entropy(model.forward(batch, attention), model.output_weight(), batch.ids,
                                                      batch.layout, 1.0f / 64)
                           .loss);
  }
  std::map<std::string, std::string> all;
  for (const Parameter& parameter : parameters) all[parameter.name] = bytes_of(parameter.leaf.grad());
  return all;
}

TEST_P(ExpertAdapters, EachSequenceHasTheBitsOfItsAdapterAlone) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Transformer both = base(dtype);
    both.load_adapter(given(), "one");
    both.load_adapter(other(), "two");
    const auto found = forward_bytes(both, batch_of({0, 1, 2, 3}, mixed));
    for (size_t s = 0; s < sequences.size(); ++s) {
      Transformer alone = base(dtype);
      if (mixed[s] == "one") alone.load_adapter(given());
      if (mixed[s] == "two") alone.load_adapter(other());
      EXPECT_EQ(found[s], forward_bytes(alone, batch_of({s}, {}))[0]) << "sequence " << s;
    }
    both.remove_adapter("one");
    both.remove_adapter("two");
    EXPECT_EQ(forward_bytes(both, batch_of({0}, {})), forward_bytes(base(dtype), batch_of({0}, {})));
  }
}

TEST_P(ExpertAdapters, ABatchHasTheGradientsOfItsSequencesOneByOne) {
  Transformer model = base();
  model.load_adapter(given(), "one");
  model.load_adapter(other(), "two");
  const auto together = gradients(model, "one", {batch_of({0, 1, 2, 3}, mixed)});
  EXPECT_EQ(together, gradients(model, "one", {batch_of({0}, {"one"}), batch_of({3}, {"one"})}));
  const auto of_two = gradients(model, "two", {batch_of({0, 1, 2, 3}, mixed)});
  EXPECT_EQ(of_two, gradients(model, "two", {batch_of({2}, {"two"})}));
}

TEST_P(ExpertAdapters, MergedTheyGiveTheSameLogits) {
  const ModelFiles files = open_model_files(golden(GetParam().name));
  const TemporaryFolder folder;
  const MergedModel merged = write_merged_model(folder.path(), files, given());
  EXPECT_GT(merged.merged, 0);
  const MergeCheck check = check_merged_model(folder.path(), files, given());
  EXPECT_LE(check.difference, check.bound);
  EXPECT_LT(check.bound, 1e-4);
  EXPECT_GT(largest_difference(logits_of(load(folder.path(), DType::f32), sequences), logits_of(base(), sequences)),
            1e-2);
}

// Logits, and the gradients of all factors, of sequences of which one has no adapter: sums in another order than the
// cpu's, to 1e-4 as in device_test.cpp.
TEST_P(ExpertAdapters, OnADeviceTheyAreThoseOfTheCpu) {
  const ModelFiles files = open_model_files(golden(GetParam().name));
  Transformer here = base(), there(files.config, *files.weights, {.device = {DeviceKind::simt}});
  std::vector<std::vector<Tensor>> found;
  for (Transformer* model : {&here, &there}) {
    model->load_adapter(given(), "one");
    const TokenBatch batch = batch_of({0, 1, 2}, {"one", "", "one"});
    std::vector<Parameter> parameters = model->trainable_parameters("one");
    PackedAttention attention(model->config(), batch.layout);
    const autograd::Variable hidden = model->forward(batch, attention);
    found.push_back({kernels::moved(model->logits(hidden.value()), {})});
    autograd::backward(
        autograd::linear_cross_entropy(hidden, model->output_weight(), batch.ids, batch.layout, 1.0f / 64).loss);
    for (const Parameter& parameter : parameters) found.back().push_back(kernels::moved(parameter.leaf.grad(), {}));
  }
  ASSERT_EQ(found[0].size(), found[1].size());
  for (size_t i = 0; i < found[0].size(); ++i)
    EXPECT_LE(largest_difference(found[1][i], found[0][i]), 1e-4 * std::max(1.0, norm(found[0][i]))) << i;
}

LoraConfig new_config(const ModelConfig& model) {
  LoraConfig config;
  config.r = 3;
  config.target_modules = {"q_proj"};
  const std::string experts = model.experts.module_of_parameters + ".experts.";
  config.target_parameters = {experts + "gate_up_proj", experts + "down_proj"};
  return config;
}

TEST_P(ExpertAdapters, ANewOneBeginsWithoutEffectAndHasTheShapesThatAreCounted) {
  Transformer model = base();
  const Tensor before = logits_of(model, sequences);
  model.add_lora(new_config(model.config()), 7);
  EXPECT_EQ(largest_difference(logits_of(model, sequences), before), 0.0);
  std::vector<Shape> shapes;
  for (const Parameter& parameter : model.trainable_parameters()) shapes.push_back(parameter.master.shape());
  EXPECT_EQ(shapes, adapter_shapes(model.config(), new_config(model.config())));
  // What is saved comes back.
  Transformer again = base();
  again.load_adapter(model.adapter());
  const PeftAdapter first = model.adapter(), second = again.adapter();
  for (const auto& [module, weights] : first.modules)
    EXPECT_EQ(largest_difference(second.modules.at(module).a, weights.a), 0.0) << module;
}

// Of the first layer that has some.
LoraWeights& experts_of(PeftAdapter& adapter) {
  for (auto& [module, weights] : adapter.modules)
    if (module.ends_with(".experts")) return weights;
  throw std::out_of_range("no experts");
}

TEST_P(ExpertAdapters, WhatDoesNotGoWithThemIsRefusedByKey) {
  const auto key_of = [](const std::function<void(LoraConfig&)>& change) {
    Transformer model = base();
    LoraConfig config = new_config(model.config());
    change(config);
    try {
      model.add_lora(config, 1);
    } catch (const ConfigError& error) {
      return error.key();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(key_of([](LoraConfig&) {}), "accepted");
  EXPECT_EQ(key_of([](LoraConfig& c) { c.lora_dropout = 0.1; }), "lora_dropout");
  EXPECT_EQ(key_of([](LoraConfig& c) { c.use_dora = true; }), "use_dora");
  EXPECT_EQ(key_of([](LoraConfig& c) { c.rank_pattern = {{"down_proj", 2}}; }), "rank_pattern");
  EXPECT_EQ(key_of([](LoraConfig& c) { c.alpha_pattern = {{"down_proj", 2}}; }), "alpha_pattern");
  EXPECT_EQ(key_of([](LoraConfig& c) { c.init_lora_weights = "pissa"; }), "init_lora_weights");
  EXPECT_EQ(key_of([](LoraConfig& c) { c.target_parameters.emplace_back("mlp.gate"); }), "target_parameters");
  PeftAdapter wrong = given();
  Tensor& b = experts_of(wrong).b;
  b = b.slice(0, 0, b.dim(0) - 1);
  Transformer model = base();
  EXPECT_THROW(model.load_adapter(wrong), FormatError);
}

TEST(ExpertAdaptersOf, AModelWithoutExpertsAreRefused) {
  Transformer model = load(golden("tiny_llama/untied"), DType::f32);
  EXPECT_THROW(model.add_lora(new_config(model.config()), 1), ConfigError);
}

INSTANTIATE_TEST_SUITE_P(
    Golden, ExpertAdapters,
    testing::Values(Model{"tiny_mixtral", "mixtral_experts"}, Model{"tiny_qwen3_moe/some", "qwen3_moe_experts"},
                    Model{"tiny_granite_moe", "granitemoe_experts"}, Model{"tiny_qwen2_moe/all", "qwen2_moe_experts"},
                    Model{"tiny_qwen3_5_moe/tied", "qwen3_5_moe_experts"},
                    Model{"tiny_lfm2_moe/biased", "lfm2_moe_experts"}, Model{"tiny_gpt_oss/dense", "gpt_oss_experts"}),
    [](const auto& info) { return std::string(info.param.adapter); });

}  // namespace
}  // namespace lathe::nn
