// gpt-oss: every other layer, from the first, has a sliding window; attention has sinks and biases; feed-forward blocks
// are mixtures of experts with biases and a clamped activation.
#include "core/error.h"
#include "kernels/gated/bodies.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/sliding_windows.h"

namespace lathe::nn {
namespace {

constexpr int64_t usual_pattern = 2;  // every second layer sees all

void set_own_fields(ModelConfig& model, int64_t experts, int64_t per_token, int64_t intermediate_size) {
  model.activation = Activation::clamped_silu;
  model.attention_sinks = true;
  model.experts = {.num_experts = experts,
                   .num_experts_per_tok = per_token,
                   .intermediate_size = intermediate_size,
                   .norm_topk_prob = true,  // a softmax of the chosen logits alone
                   .bias = true,
                   .router = "router",
                   .stacked = StackedExperts::gate_and_up_in_turn};
  for (LayerConfig& layer : model.layers) layer.experts = true;
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' GptOssConfig where config.json is silent.
  config.set_default("num_key_value_heads", 8);
  config.set_default("head_dim", 64);
  config.set_default("max_position_embeddings", 131072);
  config.set_default("rms_norm_eps", 1e-5);
  config.set_default("rope_theta", 150000.0);
  config.set_default("attention_bias", true);
  config.set_default("sliding_window", 128);
  if (!config.find("rope_parameters") && !config.find("rope_scaling"))
    config.set(
        "rope_scaling",
        {{"rope_type", "yarn"}, {"factor", 32.0}, {"truncate", false}, {"original_max_position_embeddings", 4096}});
  for (const auto& [key, computed] :
       {std::pair{"swiglu_limit", kernels::gate_limit}, {"swiglu_alpha", kernels::clamped_silu_alpha}})
    if (config.number(key, computed) != computed)
      throw ConfigError(key, "is not supported but for " + std::to_string(computed));
  if (config.text("hidden_act", "silu") != "silu") throw ConfigError("hidden_act", "expected silu");
  ModelConfig result = read_hf_fields(config);
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides_by_type(config, i).value_or((i + 1) % usual_pattern != 0))
      result.layers[i].sliding_window = config.integer("sliding_window", 0);
  set_own_fields(result, config.integer("num_local_experts", 128), config.integer("num_experts_per_tok", 4),
                 result.intermediate_size);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, gpt_oss_family);
  result.ropes[0].scaling.truncate = false;  // the file does not say
  const std::vector<bool> slides = slides_by_gguf(*file, "gpt-oss", result.layers.size(), usual_pattern);
  const int64_t window = file->get_integer("gpt-oss.attention.sliding_window", 1, INT32_MAX);
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides[i]) result.layers[i].sliding_window = window;
  const ExpertCounts counts = read_gguf_expert_counts(*file);
  set_own_fields(result, counts.experts, counts.per_token,
                 file->get_integer("gpt-oss.expert_feed_forward_length", 1, INT32_MAX));
  return result;
}

constexpr GgufName gguf_names[] = {
    {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "post_attention_norm"},
    {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
};

}  // namespace

constexpr Family gpt_oss_family{.name = "gpt_oss",
                                .hf_class = "GptOssForCausalLM",
                                .gguf_architecture = "gpt-oss",
                                .from_hf = from_hf,
                                .from_gguf = from_gguf,
                                .gguf_names = gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
