// Qwen3 with mixtures of experts in place of feed-forward blocks: in all layers, or in those that the config says.
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Qwen3MoeConfig where config.json is silent.
  for (const auto& [key, value] : {std::pair{"num_key_value_heads", 4},
                                   {"max_position_embeddings", 32768},
                                   {"sliding_window", 4096},
                                   {"decoder_sparse_step", 1},
                                   {"moe_intermediate_size", 768},
                                   {"num_experts_per_tok", 8}})
    config.set_default(key, value);
  ModelConfig result = read_hf_fields(config);
  result.qk_norm = QkNorm::per_head;
  // transformers 5 writes num_local_experts, and reads both.
  result.experts = {.num_experts = config.integer("num_experts", config.integer("num_local_experts", 128)),
                    .num_experts_per_tok = config.integer("num_experts_per_tok"),
                    .intermediate_size = config.integer("moe_intermediate_size"),
                    .norm_topk_prob = config.flag("norm_topk_prob", false)};
  set_sparse_layers(result, config);
  if (config.flag("use_sliding_window", false))
    for (LayerConfig& layer : result.layers) layer.sliding_window = config.integer("sliding_window", 0);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, qwen3_moe_family);
  result.qk_norm = QkNorm::per_head;
  const ExpertCounts counts = read_gguf_expert_counts(*file);
  result.experts = {.num_experts = counts.experts,
                    .num_experts_per_tok = counts.per_token,
                    .intermediate_size = file->get_integer(gguf_key(*file, "expert_feed_forward_length"), 1, INT32_MAX),
                    .norm_topk_prob = true};  // the file does not say; llama.cpp divides
  for (LayerConfig& layer : result.layers) layer.experts = true;
  return result;
}

}  // namespace

constexpr Family qwen3_moe_family{.name = "qwen3_moe",
                                  .hf_class = "Qwen3MoeForCausalLM",
                                  .gguf_architecture = "qwen3moe",
                                  .from_hf = from_hf,
                                  .from_gguf = from_gguf,
                                  .gguf_names = usual_gguf_names,
                                  .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
