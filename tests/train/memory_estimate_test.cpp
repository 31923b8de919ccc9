// The figures that people plan by, from config.json alone: the shapes of public models (tests/train/shapes).
#include "train/memory_estimate.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/support/source_dir.h"

namespace lathe::train {
namespace {

nn::ModelConfig shape(const std::string& name) {
  return nn::read_hf_config(std::filesystem::path(source_dir) / "tests/train/shapes" / name);
}

nn::LoraConfig lora(int64_t r, const std::string& targets) {
  nn::LoraConfig config;
  config.r = r;
  config.target_modules_regex = targets;
  return config;
}
const std::string query_and_value = R"(.*\.(q|v)_proj)";

int64_t bytes_of(const MemoryEstimate& estimate, MemoryTag tag) {
  int64_t bytes = 0;
  for (const MemoryLine& line : estimate.lines)
    if (line.tag == tag) bytes += line.bytes;
  return bytes;
}

// QLoRA as its paper has it: every linear targeted, one row of 2048 tokens at a time, layers recomputed.
RunShape qlora(Device device) {
  return {.dtype = DType::bf16,
          .device = device,
          .quantization = nn::Quantization{kernels::QuantizedFormat::nf4, kernels::Nf4Scales::nested},
          .forward_tokens = 2048,
          .gradient_checkpointing = true};
}
constexpr Device card{DeviceKind::cuda, 0};
constexpr int64_t gigabyte = 1'000'000'000;

TEST(TrainableParameters, AreCountedAndPrintedAsPeftPrintsThem) {
  const nn::LoraConfig eight = lora(8, query_and_value);
  EXPECT_EQ(trainable_parameters(shape("mistral_7b"), &eight).text(),
            "trainable params: 3,407,872 || all params: 7,245,139,968 || trainable%: 0.0470");
  nn::LoraConfig dora = eight;
  dora.use_dora = true;
  EXPECT_EQ(trainable_parameters(shape("mistral_7b"), &dora).trainable, 3407872 + 32 * (4096 + 1024));
  const nn::LoraConfig sixteen = lora(16, query_and_value);
  EXPECT_EQ(trainable_parameters(shape("mistral_nemo"), &sixteen).text(),
            "trainable params: 9,830,400 || all params: 12,257,612,800 || trainable%: 0.0802");
  EXPECT_EQ(trainable_parameters(shape("mistral_7b"), nullptr).text(),
            "trainable params: 7,241,732,096 || all params: 7,241,732,096 || trainable%: 100.0000");
}

TEST(MemoryEstimate, SevenBillionWeightsTakeAboutFourGigabytesInNf4) {
  const nn::LoraConfig adapter = lora(16, query_and_value);
  const auto weights = [&](const RunShape& run) {
    return bytes_of(estimate_memory(shape("mistral_7b"), &adapter, run), MemoryTag::weights);
  };
  RunShape dense = qlora(card);
  dense.quantization.reset();
  EXPECT_NEAR(static_cast<double>(weights(dense)) / gigabyte, 14.5, 0.1);
  EXPECT_NEAR(static_cast<double>(weights(qlora(card))) / gigabyte, 4.1, 0.1);
  EXPECT_NEAR(static_cast<double>(weights(qlora({}))) / gigabyte, 4.45, 0.1);  // in panels, whose scales are f32
}

TEST(MemoryEstimate, QloraOfSevenBillionFits24GigabytesAndOf70BillionFits80) {
  const nn::LoraConfig adapter = lora(16, "all-linear");
  EXPECT_LT(estimate_memory(shape("mistral_7b"), &adapter, qlora(card)).total_bytes(), 24 * gigabyte);
  EXPECT_LT(estimate_memory(shape("llama_70b"), &adapter, qlora(card)).total_bytes(), 80 * gigabyte);
  RunShape dense = qlora(card);
  dense.quantization.reset();
  EXPECT_GT(estimate_memory(shape("llama_70b"), &adapter, dense).total_bytes(), 80 * gigabyte);
}

TEST(MemoryEstimate, ASecondModelCounts) {
  RunShape alone = qlora(card);
  alone.quantization.reset();
  const auto weights = [&](std::optional<FollowsTheModel> reference) {
    RunShape run = alone;
    run.reference = reference;
    return bytes_of(estimate_memory(shape("mistral_7b"), nullptr, run), MemoryTag::weights);
  };
  const int64_t count = shape("mistral_7b").parameter_count();
  EXPECT_EQ(weights(FollowsTheModel::no) - weights({}), 2 * count);
  EXPECT_EQ(weights(FollowsTheModel::yes) - weights({}), 6 * count);
}

TEST(MemoryEstimate, ADeviceIsToldTheOneLinearThatIsDequantised) {
  const nn::LoraConfig adapter = lora(16, "all-linear");
  RunShape dense = qlora(card);
  dense.quantization.reset();
  const auto workspace = [&](const RunShape& run) {
    return bytes_of(estimate_memory(shape("mistral_7b"), &adapter, run), MemoryTag::workspace);
  };
  EXPECT_EQ(workspace(qlora(card)) - workspace(dense), 2 * 4096 * 14336);
}

nn::ModelConfig mixture_shape() {
  nn::ModelConfig mixture = shape("mistral_7b");
  mixture.experts = {.num_experts = 128, .num_experts_per_tok = 8, .intermediate_size = 768};
  for (nn::LayerConfig& layer : mixture.layers) layer.experts = true;
  return mixture;
}
nn::LoraConfig adapted_experts() {
  nn::LoraConfig adapter = lora(16, query_and_value);
  adapter.target_parameters = {"mlp.experts.down_proj"};
  return adapter;
}

// Where experts are adapted, the largest linear, q's.
TEST(MemoryEstimate, ADeviceIsToldTheBandOfExpertsThatIsDequantised) {
  const nn::LoraConfig frozen = lora(16, query_and_value), adapted = adapted_experts();
  const auto workspace = [&](const nn::LoraConfig& adapter) {
    return bytes_of(estimate_memory(mixture_shape(), &adapter, qlora(card)), MemoryTag::workspace);
  };
  EXPECT_EQ(workspace(frozen), 2 * 5 * 2 * 4096 * 768) << "gate and up of five experts are 63 of 64 MB";
  EXPECT_EQ(workspace(adapted), 2 * 4096 * 4096);
}

// Of each of a token's rows what goes into the expert; and in the largest moment rows of what goes in and of what comes
// out, and three of the token's own, where there is an inner row for each expert, and four of the token's.
TEST(MemoryEstimate, AMixtureThatStaysOnTheDeviceSavesLess) {
  const nn::LoraConfig frozen = lora(16, query_and_value), adapted = adapted_experts();
  RunShape run = qlora(card);
  run.quantization.reset();
  run.gradient_checkpointing = false;
  run.forward_tokens = 8192;  // a layer's moment outweighs the loss's
  const auto activations = [&](const nn::LoraConfig& adapter) {
    return bytes_of(estimate_memory(mixture_shape(), &adapter, run), MemoryTag::activations);
  };
  EXPECT_EQ(activations(adapted) - activations(frozen),
            int64_t{2} * 8192 * (32 * 8 * 4096 + (2 * 8 + 3) * 4096 - (8 * 768 + 4 * 4096)));
}

}  // namespace
}  // namespace lathe::train
