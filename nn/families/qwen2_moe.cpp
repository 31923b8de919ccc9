// Qwen1.5-MoE and Qwen2-57B-A14B: a Qwen2 with mixtures of experts, beside which all tokens go through one more with a
// gate of its own, in all layers or in those that the config says.
#include "nn/families/qwen2_moe.h"

#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/sliding_windows.h"

namespace lathe::nn {

ExpertsConfig experts_of_qwen2(ExpertCounts counts, int64_t intermediate_size, int64_t shared, bool norm_topk_prob) {
  if (shared < 1) throw ConfigError("shared_expert_intermediate_size", "expected at least 1: its mixtures have one");
  return {.num_experts = counts.experts,
          .num_experts_per_tok = counts.per_token,
          .intermediate_size = intermediate_size,
          .norm_topk_prob = norm_topk_prob,
          .shared = {.intermediate_size = shared, .gated = true}};
}

namespace {

// transformers' way where layer_types does not say: every other layer, from the first, below max_window_layers.
void set_qwen2_moe_windows(ModelConfig& model, const HfFields& config) {
  if (!config.flag("use_sliding_window", false)) return;
  for (size_t i = 0; i < model.layers.size(); ++i)
    if (slides_by_type(config, i).value_or(i % 2 == 0 && static_cast<int64_t>(i) < config.integer("max_window_layers")))
      model.layers[i].sliding_window = config.integer("sliding_window", 0);
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Qwen2MoeConfig where config.json is silent.
  for (const auto& [key, value] : {std::pair{"num_key_value_heads", 16},
                                   {"max_position_embeddings", 32768},
                                   {"sliding_window", 4096},
                                   {"max_window_layers", 28},
                                   {"decoder_sparse_step", 1},
                                   {"moe_intermediate_size", 1408},
                                   {"shared_expert_intermediate_size", 5632},
                                   {"num_experts_per_tok", 4},
                                   {"num_experts", 60}})
    config.set_default(key, value);
  ModelConfig result = read_hf_fields(config);
  result.attention_bias = config.flag("qkv_bias", true) ? AttentionBias::qkv : AttentionBias::none;
  result.experts = experts_of_qwen2(
      {config.integer("num_experts"), config.integer("num_experts_per_tok")}, config.integer("moe_intermediate_size"),
      config.integer("shared_expert_intermediate_size"), config.flag("norm_topk_prob", false));
  set_sparse_layers(result, config);
  set_qwen2_moe_windows(result, config);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, qwen2_moe_family);
  const ExpertCounts counts = read_gguf_expert_counts(*file);
  // Files from before these keys are as llama.cpp takes them.
  const auto length = [&](const std::string& key, int64_t otherwise) {
    return file->contains(key) ? file->get_integer(key, 1, INT32_MAX) : otherwise;
  };
  // The file does not say whether weights are divided; llama.cpp does not.
  result.experts = experts_of_qwen2(
      counts, length("qwen2moe.expert_feed_forward_length", result.intermediate_size / counts.per_token),
      length("qwen2moe.expert_shared_feed_forward_length", result.intermediate_size), false);
  for (LayerConfig& layer : result.layers) layer.experts = true;
  return result;
}

// usual_gguf_names, and the shared expert's.
constexpr GgufName qwen2_moe_gguf_names[] = {
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp"},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
};

}  // namespace

constexpr Family qwen2_moe_family{.name = "qwen2_moe",
                                  .hf_class = "Qwen2MoeForCausalLM",
                                  .gguf_architecture = "qwen2moe",
                                  .from_hf = from_hf,
                                  .from_gguf = from_gguf,
                                  .gguf_names = qwen2_moe_gguf_names,
                                  .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
