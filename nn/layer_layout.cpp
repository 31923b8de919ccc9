#include "nn/layer_layout.h"

namespace lathe::nn {
namespace {

void add_norms(LayerLayout& layer, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  switch (config.norm_placement) {
    case NormPlacement::before:
      layer.input_norm = {config.names.input_norm, hidden};
      layer.feed_forward_norm = {config.names.feed_forward_norm, hidden};
      break;
    case NormPlacement::before_and_after:
      layer.input_norm = {config.names.input_norm, hidden};
      layer.attention_output_norm = {"post_attention_layernorm", hidden};
      layer.feed_forward_norm = {"pre_feedforward_layernorm", hidden};
      layer.feed_forward_output_norm = {"post_feedforward_layernorm", hidden};
      break;
    case NormPlacement::after:
      layer.attention_output_norm = {"post_attention_layernorm", hidden};
      layer.feed_forward_output_norm = {"post_feedforward_layernorm", hidden};
      break;
  }
}

void add_attention(LayerLayout& layer, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size, head = config.head_dim;
  const int64_t q = config.num_attention_heads * head, kv = config.num_key_value_heads * head;
  const bool bias = config.attention_bias != AttentionBias::none;
  if (config.qk_norm == QkNorm::per_head) {
    layer.q_norm = {config.names.q_norm, head};
    layer.k_norm = {config.names.k_norm, head};
  } else if (config.qk_norm == QkNorm::whole) {
    layer.q_norm = {config.names.q_norm, q};
    layer.k_norm = {config.names.k_norm, kv};
  }
  if (config.projections == Projections::fused) {
    layer.qkv_proj = {{"self_attn.qkv_proj", q + 2 * kv, hidden, bias}};
  } else {
    layer.qkv_proj = {{"self_attn.q_proj", config.attention_gate ? 2 * q : q, hidden, bias},
                      {"self_attn.k_proj", kv, hidden, bias},
                      {"self_attn.v_proj", kv, hidden, bias}};
  }
  if (config.attention_sinks) layer.sinks = {"self_attn.sinks", config.num_attention_heads};
  layer.o_proj = {config.names.o_proj, hidden, q, config.attention_bias == AttentionBias::qkvo};
}

void add_short_conv(LayerLayout& layer, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const bool bias = config.short_conv.bias;
  layer.conv = {"conv.conv", hidden, config.short_conv.taps, bias};
  layer.conv_in_proj = {"conv.in_proj", 3 * hidden, hidden, bias};
  layer.conv_out_proj = {"conv.out_proj", hidden, hidden, bias};
}

void add_gated_delta(LayerLayout& layer, const ModelConfig& config) {
  const GatedDeltaConfig& delta = config.gated_delta;
  const int64_t hidden = config.hidden_size, heads = delta.heads.value_heads, values = delta.heads.out_columns();
  if (delta.joined_projections) {
    layer.delta_in_proj = {{"linear_attn.in_proj_qkvz", delta.heads.qkv_columns() + values, hidden},
                           {"linear_attn.in_proj_ba", 2 * heads, hidden}};
  } else {
    layer.delta_in_proj = {{"linear_attn.in_proj_qkv", delta.heads.qkv_columns(), hidden},
                           {"linear_attn.in_proj_z", values, hidden},
                           {"linear_attn.in_proj_b", heads, hidden},
                           {"linear_attn.in_proj_a", heads, hidden}};
  }
  layer.delta_out_proj = {"linear_attn.out_proj", hidden, values};
  layer.conv = {"linear_attn.conv1d", delta.heads.qkv_columns(), delta.taps};
  layer.delta_norm = {"linear_attn.norm", delta.heads.value_dim};
  layer.delta_a_log = {"linear_attn.A_log", heads};
  layer.dt_bias = {"linear_attn.dt_bias", heads};
}

// in_proj makes a gate, x, B and C, and dt.
void add_mamba2(LayerLayout& layer, const ModelConfig& config) {
  const Mamba2Config& mamba = config.mamba2;
  const int64_t hidden = config.hidden_size, heads = mamba.heads.heads, inner = mamba.heads.out_columns();
  layer.conv = {"mamba.conv1d", mamba.heads.xbc_columns(), mamba.taps, mamba.conv_bias};
  layer.conv_in_proj = {"mamba.in_proj", inner + mamba.heads.xbc_columns() + heads, hidden, mamba.proj_bias};
  layer.conv_out_proj = {"mamba.out_proj", hidden, inner, mamba.proj_bias};
  layer.mamba_norm = {"mamba.norm", inner};
  layer.mamba_a_log = {"mamba.A_log", heads};
  layer.mamba_d = {"mamba.D", heads};
  layer.dt_bias = {"mamba.dt_bias", heads};
}

void add_mixer(LayerLayout& layer, const ModelConfig& config, Mixer mixer) {
  switch (mixer) {
    case Mixer::attention: return add_attention(layer, config);
    case Mixer::short_conv: return add_short_conv(layer, config);
    case Mixer::gated_delta: return add_gated_delta(layer, config);
    case Mixer::mamba2: return add_mamba2(layer, config);
  }
}

void add_experts(LayerLayout& layer, const ModelConfig& config) {
  const ExpertsConfig& experts = config.experts;
  const int64_t hidden = config.hidden_size, inner = experts.intermediate_size;
  layer.router = {experts.module + "." + experts.router, experts.num_experts, hidden, experts.bias};
  if (experts.choice_bias) layer.choice_bias = {experts.module + ".expert_bias", experts.num_experts};
  for (int64_t i = 0; i < experts.num_experts; ++i) {
    const std::string prefix = experts.module + ".experts." + std::to_string(i) + ".";
    layer.experts.push_back({{prefix + experts.gate_proj, inner, hidden, experts.bias},
                             {prefix + experts.up_proj, inner, hidden, experts.bias},
                             {prefix + experts.down_proj, hidden, inner, experts.bias}});
  }
  const SharedExpertConfig& shared = experts.shared;
  if (shared.intermediate_size == 0) return;
  if (!shared.gate_up_proj.empty()) {
    layer.gate_up_proj = {{shared.gate_up_proj, 2 * shared.intermediate_size, hidden}};
  } else {
    layer.gate_up_proj = {{shared.gate_proj, shared.intermediate_size, hidden},
                          {shared.up_proj, shared.intermediate_size, hidden}};
  }
  layer.down_proj = {shared.down_proj, hidden, shared.intermediate_size};
  if (shared.gated) layer.shared_gate = {shared.gate, 1, hidden};
}

void add_feed_forward(LayerLayout& layer, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  if (config.projections == Projections::fused || config.fused_gate_up) {
    layer.gate_up_proj = {{config.names.gate_up_proj, 2 * inner, hidden}};
  } else {
    layer.gate_up_proj = {{config.names.gate_proj, inner, hidden}, {config.names.up_proj, inner, hidden}};
  }
  layer.down_proj = {config.names.down_proj, hidden, inner};
}

}  // namespace

LayerLayout layer_layout(const ModelConfig& config, int64_t index) {
  const LayerConfig& own = config.layers.at(static_cast<size_t>(index));
  LayerLayout layer;
  add_norms(layer, config);
  add_mixer(layer, config, own.mixer);
  own.experts ? add_experts(layer, config) : add_feed_forward(layer, config);
  return layer;
}

std::vector<LinearShape> LayerLayout::linears() const {
  std::vector<LinearShape> all = qkv_proj;
  all.insert(all.end(), delta_in_proj.begin(), delta_in_proj.end());
  for (const std::optional<LinearShape>& linear : {o_proj, conv_in_proj, conv_out_proj, delta_out_proj})
    if (linear) all.push_back(*linear);
  all.insert(all.end(), gate_up_proj.begin(), gate_up_proj.end());
  for (const std::optional<LinearShape>& linear : {down_proj, shared_gate})
    if (linear) all.push_back(*linear);
  return all;
}

std::vector<LinearShape> LayerLayout::linears_and_experts() const {
  std::vector<LinearShape> all = linears();
  if (router) all.push_back(*router);
  for (const ExpertShape& expert : experts)
    for (const LinearShape& linear : {expert.gate_proj, expert.up_proj, expert.down_proj}) all.push_back(linear);
  return all;
}

std::vector<LinearShape> LayerLayout::feed_forward_linears() const {
  std::vector<LinearShape> all = gate_up_proj;
  if (down_proj) all.push_back(*down_proj);
  return all;
}

std::vector<NormShape> LayerLayout::norms() const {
  std::vector<NormShape> all;
  for (const std::optional<NormShape>& norm : {input_norm, feed_forward_norm, attention_output_norm,
                                               feed_forward_output_norm, q_norm, k_norm, delta_norm, mamba_norm})
    if (norm) all.push_back(*norm);
  return all;
}

std::vector<NormShape> LayerLayout::bare_vectors() const {
  std::vector<NormShape> all;
  for (const std::optional<NormShape>& vector : {sinks, delta_a_log, mamba_a_log, mamba_d, dt_bias, choice_bias})
    if (vector) all.push_back(*vector);
  return all;
}

bool has_norm_offset(std::string_view name) {
  return name.ends_with("norm.weight") && !name.ends_with("linear_attn.norm.weight");
}

std::string layer_prefix(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

}  // namespace lathe::nn
