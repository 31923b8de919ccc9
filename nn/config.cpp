#include "nn/config.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "kernels/experts/experts.h"
#include "kernels/short_conv/taps.h"
#include "nn/layer_layout.h"

namespace lathe::nn {
namespace {

// Divisors of frequencies below this would leave the range of f32; no model is near it.
constexpr double least_rope_factor = 1e-6;

// Models are counted in 64 bits; none is near it.
constexpr int64_t most_parameters = int64_t{1} << 60;

template <class Number>
Number parameters_of(const LayerLayout& layer) {
  Number count = 0;
  for (const LinearShape& linear : layer.linears_and_experts()) count += static_cast<Number>(linear.parameters());
  for (const NormShape& norm : layer.norms()) count += static_cast<Number>(norm.size);
  for (const NormShape& vector : layer.bare_vectors()) count += static_cast<Number>(vector.size);
  if (layer.conv) count += static_cast<Number>(layer.conv->parameters());
  return count;
}

template <class Number>
Number count_parameters(const ModelConfig& config) {
  Number count = static_cast<Number>(config.hidden_size) + static_cast<Number>(config.vocab_size) *
                                                               static_cast<Number>(config.hidden_size) *
                                                               (config.tie_word_embeddings ? 1 : 2);
  // A file may claim thousands of layers of a thousand experts: of each kind one is laid out.
  std::map<std::pair<Mixer, bool>, std::optional<Number>> of_kind;
  for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(i)];
    std::optional<Number>& known = of_kind[{layer.mixer, layer.experts}];
    if (!known) known = parameters_of<Number>(layer_layout(config, i));
    count += *known;
  }
  return count;
}

std::string excerpt(double value) { return json_excerpt(value); }

template <class Need>
void check_rope(const RopeConfig& rope, int64_t head_dim, const Need& need) {
  need(rope.rotary_dim >= 0 && rope.rotary_dim <= head_dim && rope.rotary_dim % 2 == 0,
       "a table turns " + std::to_string(rope.rotary_dim) + " of a head's " + std::to_string(head_dim) +
           " dimensions: expected an even number of them (partial_rotary_factor)");
  const int64_t frequencies = (rope.rotary_dim > 0 ? rope.rotary_dim : head_dim) / 2;
  need(std::isfinite(rope.theta) && rope.theta >= 1,
       "rope_theta = " + excerpt(rope.theta) + " is no finite number of at least 1");
  const auto divides = [&need](double factor, const std::string& key) {
    need(std::isfinite(factor) && factor >= least_rope_factor,
         key + " = " + excerpt(factor) + " is no finite positive number");
  };
  const RopeScaling& scaling = rope.scaling;
  need(std::isfinite(rope.query_beta) && rope.query_beta >= 0,
       "what queries grow by (llama_4_scaling_beta) = " + excerpt(rope.query_beta) +
           " is no finite number of at least 0");
  need(rope.query_beta == 0 || scaling.original_max_position_embeddings > 0,
       "queries that grow (llama_4_scaling_beta) need rope_scaling.original_max_position_embeddings");
  need(rope.query_beta == 0 || rope.rotary_dim == 0,
       "queries that grow (llama_4_scaling_beta) need heads that turn whole");
  if (scaling.kind != RopeScalingKind::none) divides(scaling.factor, "rope_scaling.factor");
  if (scaling.kind == RopeScalingKind::llama3) {
    divides(scaling.low_freq_factor, "rope_scaling.low_freq_factor");
    divides(scaling.high_freq_factor, "rope_scaling.high_freq_factor");
    need(scaling.low_freq_factor < scaling.high_freq_factor,
         "rope_scaling.low_freq_factor = " + excerpt(scaling.low_freq_factor) +
             " is not below rope_scaling.high_freq_factor = " + excerpt(scaling.high_freq_factor));
    need(scaling.original_max_position_embeddings > 0, "rope_scaling.original_max_position_embeddings is not positive");
  }
  const auto factors_fit = [&](const std::vector<float>& factors, const std::string& key) {
    need(static_cast<int64_t>(factors.size()) == frequencies,
         "there are " + std::to_string(factors.size()) + " frequency factors (" + key + ") for the " +
             std::to_string(frequencies) + " frequencies of a head");
    for (const float factor : factors) {
      if (std::isfinite(factor) && factor >= least_rope_factor) continue;
      divides(factor, "a frequency factor (" + key + ")");
      break;
    }
  };
  if (!rope.frequency_factors.empty()) factors_fit(rope.frequency_factors, "rope_freqs");
  if (scaling.kind == RopeScalingKind::yarn) {
    divides(scaling.beta_fast, "rope_scaling.beta_fast");
    divides(scaling.beta_slow, "rope_scaling.beta_slow");
    need(rope.theta > 1, "rope_theta = 1 has no frequencies that yarn could tell apart");
  }
  if (scaling.kind == RopeScalingKind::longrope) {
    factors_fit(scaling.short_factor, "rope_scaling.short_factor");
    factors_fit(scaling.long_factor, "rope_scaling.long_factor");
  }
  if (scaling.kind == RopeScalingKind::dynamic) need(frequencies > 1, "dynamic rope_scaling needs two frequencies");
  const bool has_context = scaling.kind == RopeScalingKind::yarn || scaling.kind == RopeScalingKind::dynamic ||
                           scaling.kind == RopeScalingKind::longrope;
  need(!has_context || scaling.original_max_position_embeddings > 0,
       "rope_scaling.original_max_position_embeddings is not positive");
  divides(scaling.attention_factor, "rope_scaling.attention_factor");
}

template <class Need>
void check_experts(const ModelConfig& config, const Need& need) {
  const ExpertsConfig& experts = config.experts;
  need(experts.num_experts > 0 && experts.num_experts <= kernels::most_experts,
       "num_experts = " + std::to_string(experts.num_experts) + " is out of range");
  need(experts.num_experts_per_tok > 0 && experts.num_experts_per_tok <= experts.num_experts,
       "num_experts_per_tok = " + std::to_string(experts.num_experts_per_tok) + " is not between 1 and the " +
           std::to_string(experts.num_experts) + " experts");
  need(experts.intermediate_size > 0 && experts.intermediate_size < (int64_t{1} << 31),
       "moe_intermediate_size = " + std::to_string(experts.intermediate_size) + " is out of range");
  need(std::isfinite(experts.routed_scale) && experts.routed_scale < 1e6,
       "routed_scaling_factor = " + excerpt(experts.routed_scale) + " is out of range");
  need(experts.shared.intermediate_size >= 0 && experts.shared.intermediate_size < (int64_t{1} << 31),
       "shared_expert_intermediate_size = " + std::to_string(experts.shared.intermediate_size) + " is out of range");
}

template <class Need>
void check_short_conv(const ModelConfig& config, const Need& need) {
  need(config.short_conv.taps >= 1 && config.short_conv.taps <= kernels::most_conv_taps,
       "a short convolution has " + std::to_string(config.short_conv.taps) + " taps: expected from 1 to " +
           std::to_string(kernels::most_conv_taps));
  need(3 * config.hidden_size < (int64_t{1} << 31),
       "3 · hidden_size = " + std::to_string(3 * config.hidden_size) + " is out of range");
}

template <class Need>
void check_gated_delta(const GatedDeltaConfig& delta, const Need& need) {
  const auto heads = [&need](int64_t count, int64_t width, const std::string& kind) {
    need(count >= 1 && count < (int64_t{1} << 16),
         "linear_num_" + kind + "_heads = " + std::to_string(count) + " is out of range");
    need(width >= 8 && width <= kernels::most_gated_delta_dim && width % 8 == 0,
         "linear_" + kind + "_head_dim = " + std::to_string(width) + ": expected a multiple of 8 up to " +
             std::to_string(kernels::most_gated_delta_dim));
  };
  heads(delta.heads.key_heads, delta.heads.key_dim, "key");
  heads(delta.heads.value_heads, delta.heads.value_dim, "value");
  need(delta.heads.key_heads < 1 || delta.heads.value_heads % delta.heads.key_heads == 0,
       "linear_num_value_heads is no multiple of linear_num_key_heads");
  need(delta.taps >= 2 && delta.taps <= kernels::most_conv_taps,
       "linear_conv_kernel_dim = " + std::to_string(delta.taps) + ": expected from 2 to " +
           std::to_string(kernels::most_conv_taps));
}

template <class Need>
void check_mamba2(const ModelConfig& config, const Need& need) {
  const Mamba2Config& mamba = config.mamba2;
  const kernels::Mamba2Heads& heads = mamba.heads;
  const auto width = [&need](int64_t dim, const char* key) {
    need(dim >= 8 && dim <= kernels::most_mamba2_dim && dim % 8 == 0, std::string(key) + " = " + std::to_string(dim) +
                                                                          ": expected a multiple of 8 up to " +
                                                                          std::to_string(kernels::most_mamba2_dim));
  };
  need(heads.heads >= 1 && heads.heads < (int64_t{1} << 16),
       "mamba_n_heads = " + std::to_string(heads.heads) + " is out of range");
  width(heads.head_dim, "mamba_d_head");
  width(heads.state_size, "mamba_d_state");
  need(heads.groups == 1, "mamba_n_groups = " + std::to_string(heads.groups) + " is not supported yet, only 1");
  need(mamba.taps >= 2 && mamba.taps <= kernels::most_conv_taps, "mamba_d_conv = " + std::to_string(mamba.taps) +
                                                                     ": expected from 2 to " +
                                                                     std::to_string(kernels::most_conv_taps));
  need(mamba.dt_min >= 0 && mamba.dt_max >= mamba.dt_min, "time_step_limit is no interval of positive numbers");
}

}  // namespace

int64_t ModelConfig::layers_with(Mixer mixer) const { return std::ranges::count(layers, mixer, &LayerConfig::mixer); }

void ModelConfig::check() const {
  std::string wrong;
  const auto need = [&wrong](bool holds, const std::string& sentence) {
    if (!holds) wrong += (wrong.empty() ? "" : "; ") + sentence;
  };
  const auto positive = [&need](int64_t value, const char* key) {
    need(value > 0 && value < (int64_t{1} << 31),
         std::string(key) + " = " + std::to_string(value) + " is out of range");
  };
  positive(vocab_size, "vocab_size");
  positive(hidden_size, "hidden_size");
  positive(intermediate_size, "intermediate_size");
  need(!layers.empty(), "there are no layers");
  positive(num_attention_heads, "num_attention_heads");
  positive(num_key_value_heads, "num_key_value_heads");
  positive(head_dim, "head_dim");
  positive(max_position_embeddings, "max_position_embeddings");
  if (num_key_value_heads > 0)
    need(num_attention_heads % num_key_value_heads == 0, "num_attention_heads is no multiple of num_key_value_heads");
  need(head_dim % 2 == 0, "head_dim is odd, which rotary embedding cannot split");
  need(rms_norm_eps > 0 && rms_norm_eps < 1, "rms_norm_eps is not between 0 and 1");
  for (const auto& [value, key] : {std::pair{query_pre_attn_scalar, "query_pre_attn_scalar"},
                                   {attention_multiplier, "attention_multiplier"},
                                   {attn_logit_softcapping, "attn_logit_softcapping"},
                                   {final_logit_softcapping, "final_logit_softcapping"}})
    need(std::isfinite(value) && value >= 0, std::string(key) + " is negative");
  for (const auto& [value, key] : {std::pair{embedding_scale, "embedding_multiplier"},
                                   {residual_multiplier, "residual_multiplier"},
                                   {logits_scaling, "logits_scaling"}})
    need(std::isfinite(value) && value > 0, std::string(key) + " is not positive");
  for (const RopeConfig& rope : ropes) check_rope(rope, head_dim, need);
  for (const LayerConfig& layer : layers) {
    need(layer.sliding_window >= 0, "sliding_window is negative");
    need(layer.rope >= no_rope && layer.rope < static_cast<int64_t>(ropes.size()), "a layer has no rotary table");
  }
  if (std::any_of(layers.begin(), layers.end(), [](const LayerConfig& layer) { return layer.experts; }))
    check_experts(*this, need);
  if (layers_with(Mixer::short_conv) > 0) check_short_conv(*this, need);
  if (layers_with(Mixer::gated_delta) > 0) check_gated_delta(gated_delta, need);
  if (layers_with(Mixer::mamba2) > 0) check_mamba2(*this, need);
  for (const int32_t id : eos_token_ids) need(id >= 0 && id < vocab_size, "eos_token_id is outside the vocabulary");
  // Each below 2^31, as checked above, so that what is multiplied here fits.
  if (wrong.empty())
    need(num_attention_heads * head_dim < (int64_t{1} << 30),
         "num_attention_heads · head_dim = " + std::to_string(num_attention_heads * head_dim) + " is out of range");
  if (wrong.empty())
    need(count_parameters<double>(*this) <= static_cast<double>(most_parameters),
         "it has more than 2^60 parameters: sizes and layers that no memory holds");
  if (!wrong.empty()) throw ConfigError("model config", wrong);
}

int64_t ModelConfig::parameter_count() const { return count_parameters<int64_t>(*this); }

}  // namespace lathe::nn
