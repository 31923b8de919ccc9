// Qwen3.5 with mixtures of experts, text: a Qwen3.5 whose layers all have Qwen2-MoE's mixture in place of a
// feed-forward block.
#include <utility>

#include "nn/families/gated_delta_fields.h"
#include "nn/families/qwen2_moe.h"

namespace lathe::nn {
namespace {

void set_experts(ModelConfig& model, ExpertCounts counts, int64_t shared) {
  model.experts = experts_of_qwen2(counts, model.intermediate_size, shared, true);
  for (LayerConfig& layer : model.layers) layer.experts = true;
}

// transformers' Qwen3_5MoeTextConfig where config.json is silent. It has no feed-forward block but the experts'.
ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  config.set_default("vocab_size", 248320);
  config.set_default("num_attention_heads", 16);
  config.set_default("num_key_value_heads", 2);
  config.set("intermediate_size", config.integer("moe_intermediate_size", 512));
  ModelConfig result = read_gated_delta_fields(config, qwen3_5_moe_family);
  set_experts(result, {config.integer("num_experts", 256), config.integer("num_experts_per_tok", 8)},
              config.integer("shared_expert_intermediate_size", 512));
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gated_delta_fields(file, qwen3_5_moe_family);
  result.intermediate_size = file->get_integer("qwen35moe.expert_feed_forward_length", 1, INT32_MAX);
  set_experts(result, read_gguf_expert_counts(*file),
              file->get_integer("qwen35moe.expert_shared_feed_forward_length", 1, INT32_MAX));
  return result;
}

}  // namespace

constexpr Family qwen3_5_moe_family{.name = "qwen3_5_moe_text",
                                    .hf_class = "Qwen3_5MoeForCausalLM",
                                    .gguf_architecture = "qwen35moe",
                                    .from_hf = from_hf,
                                    .from_gguf = from_gguf,
                                    .gguf_names = gated_delta_gguf_names,
                                    .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
