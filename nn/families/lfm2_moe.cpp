// LFM2 with mixtures of experts in all layers but the first few: a router's weights are σ of its logits, and a bias
// turns its choice.
#include <string>
#include <utility>

#include "core/error.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/lfm2.h"

namespace lathe::nn {
namespace {

void set_experts(ModelConfig& model, ExpertCounts counts, int64_t intermediate_size, int64_t dense_layers) {
  model.experts = {.num_experts = counts.experts,
                   .num_experts_per_tok = counts.per_token,
                   .intermediate_size = intermediate_size,
                   .norm_topk_prob = true,
                   .sigmoids = true,
                   .choice_bias = true,
                   .module = "feed_forward",
                   .module_of_parameters = "feed_forward",
                   .gate_proj = "w1",
                   .up_proj = "w3",
                   .down_proj = "w2"};
  for (int64_t i = dense_layers; i < model.num_hidden_layers(); ++i)
    model.layers[static_cast<size_t>(i)].experts = true;
}

// transformers' Lfm2MoeConfig where config.json is silent.
ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  config.set_default("intermediate_size", 7168);
  ModelConfig result = read_lfm2_fields(config);
  set_experts(result, {config.integer("num_experts", 32), config.integer("num_experts_per_tok", 4)},
              config.integer("moe_intermediate_size", 1792), config.integer("num_dense_layers", 2));
  result.experts.norm_topk_prob = config.flag("norm_topk_prob", true);
  result.experts.choice_bias = config.flag("use_expert_bias", true);
  result.experts.routed_scale = config.number("routed_scaling_factor", 1.0);
  if (!(result.experts.routed_scale > 0)) throw ConfigError("routed_scaling_factor", "expected more than 0");
  return result;
}

// The file says neither that weights are divided nor by what they are multiplied: as llama.cpp has it, and by 1.
ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  constexpr int64_t sigmoid_gating = 2;
  const std::string gating = "lfm2moe.expert_gating_func";
  if (file->contains(gating) && file->get_integer(gating, 0, INT32_MAX) != sigmoid_gating)
    throw ConfigError(gating, "expected 2, a sigmoid of each logit");
  ModelConfig result = read_lfm2_fields(file, lfm2_moe_family);
  set_experts(result, read_gguf_expert_counts(*file),
              file->get_integer("lfm2moe.expert_feed_forward_length", 1, INT32_MAX),
              file->get_integer("lfm2moe.leading_dense_block_count", 0, INT32_MAX));
  return result;
}

}  // namespace

constexpr Family lfm2_moe_family{.name = "lfm2_moe",
                                 .hf_class = "Lfm2MoeForCausalLM",
                                 .gguf_architecture = "lfm2moe",
                                 .from_hf = from_hf,
                                 .from_gguf = from_gguf,
                                 .gguf_names = lfm2_gguf_names,
                                 .gguf_rotary_rows = GgufRotaryRows::half_split,
                                 .gguf_final_norm = "token_embd_norm"};

}  // namespace lathe::nn
