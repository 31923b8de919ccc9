#include "nn/layer_layout.h"

namespace lathe::nn {

// The layers of a model have the same shapes; where they differ (experts in some), config.layers[layer] decides here.
LayerLayout layer_layout(const ModelConfig& config, int64_t) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q = config.num_attention_heads * config.head_dim, kv = config.num_key_value_heads * config.head_dim;
  const bool qkv_bias = config.attention_bias != AttentionBias::none;
  LayerLayout layer;
  layer.input_norm = {"input_layernorm", hidden};
  if (config.norm_placement == NormPlacement::before_and_after) {
    layer.attention_output_norm = {"post_attention_layernorm", hidden};
    layer.feed_forward_norm = {"pre_feedforward_layernorm", hidden};
    layer.feed_forward_output_norm = {"post_feedforward_layernorm", hidden};
  } else {
    layer.feed_forward_norm = {"post_attention_layernorm", hidden};
  }
  if (config.qk_norm == QkNorm::per_head) {
    layer.q_norm = {"self_attn.q_norm", config.head_dim};
    layer.k_norm = {"self_attn.k_norm", config.head_dim};
  }
  layer.q_proj = {"self_attn.q_proj", q, hidden, qkv_bias};
  layer.k_proj = {"self_attn.k_proj", kv, hidden, qkv_bias};
  layer.v_proj = {"self_attn.v_proj", kv, hidden, qkv_bias};
  layer.o_proj = {"self_attn.o_proj", hidden, q, config.attention_bias == AttentionBias::qkvo};
  layer.gate_proj = {"mlp.gate_proj", inner, hidden};
  layer.up_proj = {"mlp.up_proj", inner, hidden};
  layer.down_proj = {"mlp.down_proj", hidden, inner};
  return layer;
}

std::vector<NormShape> LayerLayout::norms() const {
  std::vector<NormShape> all{input_norm, feed_forward_norm};
  for (const std::optional<NormShape>& norm : {attention_output_norm, feed_forward_output_norm, q_norm, k_norm})
    if (norm) all.push_back(*norm);
  return all;
}

std::string layer_prefix(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

}  // namespace lathe::nn
