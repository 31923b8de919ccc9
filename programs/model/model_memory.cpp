#include "programs/model/model_memory.h"

#include <fmt/format.h>

#include "nn/kv_cache.h"
#include "nn/layer_layout.h"
#include "nn/quantization.h"
#include "train/memory_estimate.h"

namespace lathe::programs {
namespace {

int64_t weight_bytes(const nn::ModelConfig& config, DType dtype, const std::optional<nn::Quantization>& quantization) {
  int64_t bytes = config.parameter_count() * size_of(dtype);
  for (int64_t layer = 0; layer < config.num_hidden_layers(); ++layer)
    for (const nn::LinearShape& linear : nn::layer_layout(config, layer).linears_and_experts())
      bytes += nn::linear_bytes(linear, dtype, quantization, {}) - linear.out * linear.in * size_of(dtype);
  return bytes;
}

// Where matrices that the file has in blocks stay what they are; nothing where it has none.
std::optional<int64_t> kept_bytes(const nn::WeightSource& weights, DType dtype) {
  int64_t bytes = 0;
  bool any = false;
  for (const nn::WeightInfo& weight : weights.weights()) {
    const bool kept = weights.blocks(weight.name).has_value();
    any |= kept;
    bytes += kept ? weight.stored_bytes : weight.shape.numel() * size_of(dtype);
  }
  return any ? std::optional(bytes) : std::nullopt;
}

const nn::Quantization int8{kernels::QuantizedFormat::int8}, nf4{kernels::QuantizedFormat::nf4};

}  // namespace

std::vector<MemoryUse> weight_memory(const nn::ModelFiles& files) {
  const auto stored = nn::resolved_quantization(files, {});
  const auto bytes = [&](DType dtype, const std::optional<nn::Quantization>& codes) {
    return weight_bytes(files.config, dtype, codes);
  };
  const std::string beside = stored ? " beside linears in " + nn::name_of(*stored) : "";
  std::vector<MemoryUse> uses = {{"f32", "f32" + beside, bytes(DType::f32, stored)},
                                 {"bf16", "bf16" + beside, bytes(DType::bf16, stored)}};
  if (const auto kept = kept_bytes(*files.weights, DType::bf16))
    uses.insert(uses.begin(), {"file", "to answer, as the file has them (--weights file)", *kept});
  if (stored) return uses;
  uses.push_back({"load_in_8bit", "bf16 with --load_in_8bit", bytes(DType::bf16, int8)});
  uses.push_back({"load_in_4bit", "bf16 with --load_in_4bit", bytes(DType::bf16, nf4)});
  return uses;
}

std::vector<MemoryUse> kv_cache_memory(const nn::ModelConfig& config) {
  const int64_t token = nn::KvCache::bytes_per_page(config, DType::bf16, 1);
  std::vector<MemoryUse> uses = {
      {"token", "a token", token},
      {"context", fmt::format("the whole context of {} tokens", config.max_position_embeddings),
       token * config.max_position_embeddings}};
  if (config.has_states())
    uses.push_back({"state", "each sequence beside", nn::KvCache::bytes_per_state(config, DType::bf16)});
  return uses;
}

std::vector<MemoryUse> training_memory(const nn::ModelFiles& files, int64_t tokens) {
  nn::LoraConfig lora;
  lora.r = 16;
  lora.target_modules_regex = "all-linear";
  train::RunShape run;
  run.dtype = DType::bf16;
  run.forward_tokens = tokens;
  run.gradient_checkpointing = true;
  const auto bytes = [&](const nn::LoraConfig* adapter, const std::optional<nn::Quantization>& codes) {
    run.quantization = codes;
    return train::estimate_memory(files.config, adapter, run).total_bytes();
  };
  const auto stored = nn::resolved_quantization(files, {});
  std::vector<MemoryUse> uses;
  if (!stored) uses.push_back({"lora", "LoRA (r 16)", bytes(&lora, {})});
  uses.push_back({"qlora", "QLoRA (r 16, nf4)", bytes(&lora, stored ? stored : std::optional(nf4))});
  // Whole weights are trained from a directory, and not beside codes.
  if (!stored && !files.gguf) uses.push_back({"full", "all weights", bytes(nullptr, {})});
  return uses;
}

}  // namespace lathe::programs
