// A batch whose sequences use different adapters: each has the bits, and each adapter the gradients, of its sequences
// alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "autograd/ops/linear_cross_entropy.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

using Ids = std::vector<int32_t>;

const std::vector<Ids>& sequences() {
  static const std::vector<Ids> made = [] {
    std::vector<Ids> all;
    int32_t next = 0;
    for (const int length : {5, 1, 9, 3, 2, 7}) {
      all.emplace_back();
      for (int i = 0; i < length; ++i) all.back().push_back((next++ * 37 + 11) % 96);
    }
    return all;
  }();
  return made;
}
// "wide" comes back at the end; "" has none.
const std::vector<std::string> mixed_names{"wide", "wide", "", "narrow", "odd", "wide"};

// Of different ranks and targets, two with dropout (of "wide" inside its products on devices, in 16 bits), two with
// DoRA, one with an embedding of its own; B is not zero.
PeftAdapter adapter_named(const std::string& name) {
  LoraConfig config;
  config.lora_alpha = 7;
  if (name == "wide") config.r = 8, config.lora_dropout = 0.25, config.target_modules_regex = "all-linear";
  if (name == "narrow") config.r = 1, config.lora_dropout = 0.1, config.target_modules = {"q_proj", "down_proj"};
  if (name == "narrow") config.use_dora = true, config.modules_to_save = {"model.embed_tokens"};
  if (name == "odd") config.r = 3, config.target_modules = {"k_proj", "v_proj", "up_proj"};
  if (name == "odd") config.use_dora = true;
  Transformer model = load(golden("tiny_qwen3/untied"), DType::f32);
  model.add_lora(config, name.size(), name);
  PeftAdapter adapter = model.adapter(name);
  float phase = 0;
  for (auto& [module, weights] : adapter.modules)
    for (float& value : weights.b.span<float>()) value = 0.1f * std::sin(phase += 1.0f);
  return adapter;
}

struct Variant {
  Device device;
  DType dtype;
};

class AdaptersByRows : public testing::TestWithParam<Variant> {
 protected:
  Transformer model_with(const std::vector<std::string>& names) const {
    const ModelFiles files = open_model_files(golden("tiny_qwen3/untied"));
    Transformer model(files.config, *files.weights,
                      {.dtype = GetParam().dtype, .max_positions = 64, .device = GetParam().device});
    for (const std::string& name : names) model.load_adapter(adapter_named(name), name);
    return model;
  }
};

// The sequences of these numbers; dropout is keyed by the numbers, so that they are kept.
TokenBatch batch_of(const std::vector<int32_t>& numbers, std::vector<std::string> adapters) {
  Ids ids, lengths;
  for (const int32_t number : numbers) {
    const Ids& sequence = sequences()[static_cast<size_t>(number)];
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    lengths.push_back(static_cast<int32_t>(sequence.size()));
  }
  TokenBatch batch = make_token_batch(ids, lengths);
  batch.layout.sample_numbers = Tensor::of<int32_t>(numbers, {static_cast<int64_t>(numbers.size())});
  batch.adapters = std::move(adapters);
  return batch;
}

std::vector<char> bytes_of(const Tensor& tensor) {
  const Tensor here = kernels::moved(tensor, {});
  std::vector<char> bytes(static_cast<size_t>(here.nbytes()));
  std::memcpy(bytes.data(), here.raw(), bytes.size());
  return bytes;
}

// The hidden states' bytes, sequence by sequence.
std::vector<std::vector<char>> forward_bytes(const Transformer& model, const TokenBatch& batch) {
  const autograd::NoGradScope no_grad;
  PackedAttention attention(model.config(), batch.layout);
  const Tensor hidden =
      model.forward(batch, attention, {.adapter = {.dropout_seed = 3, .dropout_step = 1, .training = true}}).value();
  std::vector<std::vector<char>> result;
  const auto bounds = batch.layout.cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s) result.push_back(bytes_of(hidden.slice(0, bounds[s], bounds[s + 1])));
  return result;
}

// The gradients of one adapter, by name.
std::map<std::string, std::vector<char>> gradients(Transformer& model, const std::string& adapter,
                                                   const TokenBatch& batch, bool checkpoint_layers) {
  for (const std::string& name : model.adapter_names())
    for (const Parameter& parameter : model.trainable_parameters(name)) parameter.leaf.zero_grad();
  PackedAttention attention(model.config(), batch.layout);
  const ForwardOptions options{.checkpoint_layers = checkpoint_layers,
                               .adapter = {.dropout_seed = 3, .dropout_step = 1, .training = true}};
  const autograd::Variable hidden = model.forward(batch, attention, options);
  autograd::backward(
      autograd::linear_cross_entropy(hidden, model.output_weight(), batch.ids, batch.layout, 1.0 / 64).loss);
  std::map<std::string, std::vector<char>> result;
  for (const Parameter& parameter : model.trainable_parameters(adapter))
    result[parameter.name] = bytes_of(parameter.leaf.grad());
  return result;
}

const std::vector<int32_t> all_numbers{0, 1, 2, 3, 4, 5};

TEST_P(AdaptersByRows, EachSequenceHasTheBitsOfABatchWithItsAdapterAlone) {
  const auto mixed = forward_bytes(model_with({"wide", "narrow", "odd"}), batch_of(all_numbers, mixed_names));
  for (const std::string name : {"wide", "narrow", "odd", ""}) {
    const Transformer alone = model_with(name.empty() ? std::vector<std::string>{} : std::vector{name});
    const auto expected = forward_bytes(alone, batch_of(all_numbers, {}));
    for (size_t s = 0; s < mixed.size(); ++s) {
      EXPECT_EQ(mixed[s] == expected[s], mixed_names[s] == name) << "sequence " << s << ", adapter \"" << name << "\"";
    }
  }
}

TEST_P(AdaptersByRows, EachAdapterHasTheGradientsOfItsSequencesAlone) {
  Transformer together = model_with({"wide", "narrow", "odd"});
  for (const std::string name : {"wide", "narrow", "odd"}) {
    std::vector<int32_t> numbers;
    for (const int32_t number : all_numbers)
      if (mixed_names[static_cast<size_t>(number)] == name) numbers.push_back(number);
    Transformer alone = model_with({name});
    const auto expected = gradients(alone, name, batch_of(numbers, {}), false);
    for (const bool checkpoint_layers : {false, true})
      EXPECT_EQ(gradients(together, name, batch_of(all_numbers, mixed_names), checkpoint_layers), expected)
          << name << (checkpoint_layers ? ", layers computed again" : "");
  }
}

std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (const DeviceKind kind : {DeviceKind::cpu, DeviceKind::simt, DeviceKind::cuda})
    for (const DType dtype : {DType::f32, DType::bf16})
      if (kind != DeviceKind::cuda || kernels::why_unavailable({kind}).empty()) all.push_back({{kind}, dtype});
  return all;
}

TEST_P(AdaptersByRows, AChangedParameterChangesItsOwnSequencesAlone) {
  Transformer model = model_with({"wide", "narrow", "odd"});
  const TokenBatch batch = batch_of({0, 1, 2, 3, 4, 5}, mixed_names);
  const auto before = forward_bytes(model, batch);
  for (Parameter& parameter : model.trainable_parameters("odd")) {
    kernels::scale(parameter.master, parameter.master, 1.5);
    parameter.refresh();
  }
  const auto after = forward_bytes(model, batch);
  for (size_t s = 0; s < mixed_names.size(); ++s)
    EXPECT_EQ(before[s] == after[s], mixed_names[s] != "odd") << "sequence " << s;
}

INSTANTIATE_TEST_SUITE_P(Every, AdaptersByRows, testing::ValuesIn(variants()), [](const auto& info) {
  return to_string(info.param.device).substr(0, 4) + "_" + std::string(name_of(info.param.dtype));
});

TEST(Adapters, AreAddedListedAndRemovedByName) {
  Transformer model = load(golden("tiny_qwen3/untied"), DType::f32);
  const std::vector<Ids> ids{sequences()[0]};
  const Tensor base = logits_of(model, ids);
  model.load_adapter(adapter_named("wide"), "wide");
  const Tensor wide = logits_of(model, ids);  // the only one is used where the batch says nothing
  EXPECT_GT(largest_difference(wide, base), 1e-2);
  model.load_adapter(adapter_named("odd"), "odd");
  EXPECT_EQ(model.adapter_names(), (std::vector<std::string>{"odd", "wide"}));
  EXPECT_THROW(logits_of(model, ids), ConfigError);  // which of the two?
  EXPECT_THROW(model.load_adapter(adapter_named("odd"), "odd"), ConfigError);
  EXPECT_THROW(model.load_adapter(adapter_named("odd"), ""), ConfigError);
  model.remove_adapter("odd");
  EXPECT_EQ(largest_difference(logits_of(model, ids), wide), 0.0);
  model.remove_adapter("wide");
  EXPECT_FALSE(model.has_adapter());
  EXPECT_EQ(largest_difference(logits_of(model, ids), base), 0.0);
}

TEST(Adapters, AnUnknownNameIsAnErrorThatListsTheKnownOnes) {
  Transformer model = load(golden("tiny_qwen3/untied"), DType::f32);
  model.load_adapter(adapter_named("odd"), "odd");
  const auto expect_named = [](const auto& call) {
    try {
      call();
      ADD_FAILURE() << "an adapter that is not there was accepted";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("no adapter 'old'; it has odd"), std::string::npos) << error.what();
    }
  };
  const TokenBatch batch = batch_of({0}, {"old"});
  PackedAttention attention(model.config(), batch.layout);
  expect_named([&] { model.forward(batch, attention); });
  expect_named([&] { model.adapter("old"); });
  expect_named([&] { model.trainable_parameters("old"); });
  expect_named([&] { model.remove_adapter("old"); });
  EXPECT_THROW(model.forward(batch_of({0}, {"odd", "odd"}), attention), ShapeError);  // one sequence, two names
}

}  // namespace
}  // namespace lathe::nn
