#include "core/json_value.h"
#include "nn/convert/hf_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "nn/families/family.h"

namespace lathe::nn {
namespace {

using nlohmann::ordered_json;

const char* torch_name(DType dtype) {
  return dtype == DType::bf16 ? "bfloat16" : dtype == DType::f16 ? "float16" : "float32";
}

// f32 rounds the table, and llama.cpp's converter computes it in f32.
bool nearly(double a, double b) { return std::abs(a - b) <= 1e-4 * std::abs(b); }

// Llama 3.1's rule has four numbers: low and high are 1 and 4 in every model that uses it, the factor is the largest
// one, and the context is a power of two.
ordered_json llama3_scaling(const RopeConfig& rope, int64_t head_dim) {
  const std::vector<float>& table = rope.frequency_factors;
  const double factor = *std::max_element(table.begin(), table.end());
  for (int64_t context = 16; context <= (int64_t{1} << 24); context *= 2) {
    bool same = true;
    for (size_t i = 0; same && i < table.size(); ++i) {
      const double wavelength =
          2 * std::numbers::pi * std::pow(rope.theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      const double smooth = std::clamp((static_cast<double>(context) / wavelength - 1) / 3, 0.0, 1.0);
      same = nearly(table[i], 1 / ((1 - smooth) / factor + smooth));
    }
    if (same)
      return {{"rope_type", "llama3"},
              {"factor", factor},
              {"low_freq_factor", 1.0},
              {"high_freq_factor", 4.0},
              {"original_max_position_embeddings", context}};
  }
  throw ConfigError("rope_freqs.weight",
                    "is not the table of Llama 3's scaling, and transformers has no other way to "
                    "say it");
}

// GGUF holds numbers in f32: 1e-05 again, not 9.999999747378752e-06, which rounds to the same.
double as_written(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), static_cast<float>(value)).ptr;
  double shortest = value;
  std::from_chars(text, end, shortest);
  return static_cast<float>(value) == value ? shortest : value;
}

// f32's digits that come back as the same number: 1.1, not 1.10000002384.
ordered_json as_written(const std::vector<float>& values) {
  ordered_json list = ordered_json::array();
  for (const float value : values) list.push_back(as_written(static_cast<double>(value)));
  return list;
}

// transformers computes the factor of cos and sin from the two lengths where the file has none.
ordered_json longrope_scaling(const ModelConfig& config) {
  const RopeScaling& s = config.ropes[0].scaling;
  ordered_json json = {{"rope_type", "longrope"},
                       {"short_factor", as_written(s.short_factor)},
                       {"long_factor", as_written(s.long_factor)}};
  const double stretch =
      static_cast<double>(config.max_position_embeddings) / static_cast<double>(s.original_max_position_embeddings);
  const double usual =
      stretch <= 1
          ? 1
          : std::sqrt(1 + std::log(stretch) / std::log(static_cast<double>(s.original_max_position_embeddings)));
  if (std::abs(s.attention_factor - usual) > 1e-6) json["attention_factor"] = as_written(s.attention_factor);
  return json;
}

ordered_json yarn_scaling(const RopeScaling& s) {
  ordered_json json = {{"rope_type", "yarn"},
                       {"factor", s.factor},
                       {"original_max_position_embeddings", s.original_max_position_embeddings},
                       {"beta_fast", s.beta_fast},
                       {"beta_slow", s.beta_slow},
                       {"attention_factor", s.attention_factor}};
  if (!s.truncate) json["truncate"] = false;
  return json;
}

ordered_json rope_scaling_of(const ModelConfig& config) {
  const RopeConfig& rope = config.ropes[0];
  const int64_t head_dim = config.head_dim;
  if (!rope.frequency_factors.empty()) return llama3_scaling(rope, head_dim);
  const RopeScaling& s = rope.scaling;
  switch (s.kind) {
    case RopeScalingKind::none: return nullptr;
    case RopeScalingKind::linear: return {{"rope_type", "linear"}, {"factor", s.factor}};
    case RopeScalingKind::llama3:
      return {{"rope_type", "llama3"},
              {"factor", s.factor},
              {"low_freq_factor", s.low_freq_factor},
              {"high_freq_factor", s.high_freq_factor},
              {"original_max_position_embeddings", s.original_max_position_embeddings}};
    case RopeScalingKind::yarn: return yarn_scaling(s);
    case RopeScalingKind::longrope: return longrope_scaling(config);
    case RopeScalingKind::dynamic: return {{"rope_type", "dynamic"}, {"factor", s.factor}};
  }
  return nullptr;
}

// 256, not 256.0: transformers wants an integer where its class says one.
ordered_json whole_where_it_is(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

void add_layer_types(const ModelConfig& config, ordered_json& json) {
  ordered_json types = ordered_json::array();
  for (const LayerConfig& layer : config.layers) {
    types.push_back(layer.sliding_window > 0 ? "sliding_attention" : "full_attention");
    if (layer.sliding_window > 0) json["sliding_window"] = layer.sliding_window;
  }
  json["layer_types"] = std::move(types);
}

void add_exaone4(const ModelConfig& config, ordered_json& json) {
  json["sliding_window"] = nullptr;
  add_layer_types(config, json);
}

// Beside rope_theta and rope_scaling, which transformers 5 takes for the layers that see all, alone.
void add_olmo3(const ModelConfig& config, ordered_json& json) {
  add_layer_types(config, json);
  ordered_json full = json["rope_scaling"].is_null() ? ordered_json{{"rope_type", "default"}} : json["rope_scaling"];
  full["rope_theta"] = json["rope_theta"];
  json["rope_parameters"] = {
      {"full_attention", std::move(full)},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", as_written(config.ropes.at(1).theta)}}}};
}

void add_gemma(const ModelConfig& config, ordered_json& json) {
  json["hidden_activation"] = "gelu_pytorch_tanh";
  json["query_pre_attn_scalar"] = whole_where_it_is(
      config.query_pre_attn_scalar != 0 ? config.query_pre_attn_scalar : static_cast<double>(config.head_dim));
  if (config.family == "gemma2") {
    json["attn_logit_softcapping"] = as_written(config.attn_logit_softcapping);
    json["final_logit_softcapping"] = as_written(config.final_logit_softcapping);
  } else {
    json["rope_local_base_freq"] = config.ropes.at(1).theta;
  }
  add_layer_types(config, json);
}

void add_phi3(const ModelConfig& config, ordered_json& json) {
  const RopeConfig& rope = config.ropes[0];
  const int64_t window = config.layers[0].sliding_window, turned = rope.rotary_dim;
  json["sliding_window"] = nullptr;
  if (window > 0) json["sliding_window"] = window;
  json["original_max_position_embeddings"] = rope.scaling.original_max_position_embeddings > 0
                                                 ? rope.scaling.original_max_position_embeddings
                                                 : config.max_position_embeddings;
  if (turned > 0) json["partial_rotary_factor"] = static_cast<double>(turned) / static_cast<double>(config.head_dim);
  json["pad_token_id"] = nullptr;
}

void add_experts(const ModelConfig& config, ordered_json& json) {
  const ExpertsConfig& experts = config.experts;
  json["num_experts_per_tok"] = experts.num_experts_per_tok;
  if (config.family.starts_with("granitemoe")) {
    json["num_local_experts"] = experts.num_experts;
    return;
  }
  if (config.family == "mixtral") {
    json["num_local_experts"] = experts.num_experts;
    json["sliding_window"] = nullptr;
    return;
  }
  if (config.family == "gpt_oss") {
    json["num_local_experts"] = experts.num_experts;
    add_layer_types(config, json);
    return;
  }
  json["num_experts"] = experts.num_experts;
  json["moe_intermediate_size"] = experts.intermediate_size;
  if (config.family == "lfm2_moe") {
    json["norm_topk_prob"] = experts.norm_topk_prob;
    json["use_expert_bias"] = experts.choice_bias;
    json["routed_scaling_factor"] = as_written(experts.routed_scale);
    json["num_dense_layers"] = std::ranges::count(config.layers, false, &LayerConfig::experts);
    return;
  }
  if (experts.shared.intermediate_size > 0) json["shared_expert_intermediate_size"] = experts.shared.intermediate_size;
  if (config.family == "qwen3_5_moe_text") {  // which has experts in all layers, whose weights are always divided
    json.erase("intermediate_size");
    return;
  }
  json["norm_topk_prob"] = experts.norm_topk_prob;
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = ordered_json::array();
  if (config.family != "qwen2_moe") return;
  json["qkv_bias"] = config.attention_bias == AttentionBias::qkv;
  json["use_sliding_window"] = false;
  json["sliding_window"] = 0;
}

void add_granite(const ModelConfig& config, ordered_json& json) {
  json["embedding_multiplier"] = as_written(config.embedding_scale);
  json["attention_multiplier"] =
      as_written(config.attention_multiplier != 0 ? config.attention_multiplier
                                                  : 1 / std::sqrt(static_cast<double>(config.head_dim)));
  json["residual_multiplier"] = as_written(config.residual_multiplier);
  json["logits_scaling"] = as_written(config.logits_scaling);
}

// `other`: what layers are called that do not attend.
void add_mixer_types(const ModelConfig& config, const char* other, ordered_json& json) {
  ordered_json types = ordered_json::array();
  for (const LayerConfig& layer : config.layers)
    types.push_back(layer.mixer == Mixer::attention ? "full_attention" : other);
  json["layer_types"] = std::move(types);
}

// By the words of before transformers 5, which it knows as well.
void add_granite_hybrid(const ModelConfig& config, ordered_json& json) {
  const ExpertsConfig& experts = config.experts;
  const Mamba2Config& mamba = config.mamba2;
  json["num_local_experts"] = 0;
  json["shared_intermediate_size"] =
      experts.num_experts > 0 ? experts.shared.intermediate_size : config.intermediate_size;
  json["position_embedding_type"] = config.layers[0].rope == no_rope ? "nope" : "rope";
  ordered_json types = ordered_json::array();
  for (const LayerConfig& layer : config.layers)
    types.push_back(layer.mixer == Mixer::attention ? "attention" : "mamba");
  json["layer_types"] = std::move(types);
  if (config.layers_with(Mixer::mamba2) == 0) {  // transformers checks these all the same
    json["mamba_n_heads"] = config.num_attention_heads;
    json["mamba_d_head"] = "auto";
    return;
  }
  const int64_t inner = mamba.heads.out_columns();
  if (inner % config.hidden_size != 0)
    throw ConfigError("mamba_expand", std::to_string(inner) + " columns are no multiple of hidden_size");
  json["mamba_expand"] = inner / config.hidden_size;
  json["mamba_n_heads"] = mamba.heads.heads;
  json["mamba_d_head"] = mamba.heads.head_dim;
  json["mamba_d_state"] = mamba.heads.state_size;
  json["mamba_n_groups"] = mamba.heads.groups;
  json["mamba_d_conv"] = mamba.taps;
  json["mamba_conv_bias"] = mamba.conv_bias;
  json["mamba_proj_bias"] = mamba.proj_bias;
}

// Beside rope_theta and rope_scaling, which transformers leaves to older families.
void add_gated_delta(const ModelConfig& config, ordered_json& json) {
  const GatedDeltaConfig& delta = config.gated_delta;
  const int64_t turned = config.ropes[0].rotary_dim != 0 ? config.ropes[0].rotary_dim : config.head_dim;
  ordered_json rope = json["rope_scaling"].is_null() ? ordered_json{{"rope_type", "default"}} : json["rope_scaling"];
  rope["rope_theta"] = json["rope_theta"];
  rope["partial_rotary_factor"] = static_cast<double>(turned) / static_cast<double>(config.head_dim);
  json.erase("rope_scaling");
  json.erase("rope_theta");
  json["rope_parameters"] = std::move(rope);
  json["linear_conv_kernel_dim"] = delta.taps;
  json["linear_key_head_dim"] = delta.heads.key_dim;
  json["linear_value_head_dim"] = delta.heads.value_dim;
  json["linear_num_key_heads"] = delta.heads.key_heads;
  json["linear_num_value_heads"] = delta.heads.value_heads;
  add_mixer_types(config, "linear_attention", json);
}

// transformers reads the angles' fields from rope_parameters alone, which says how queries grow, too.
void add_ministral3(const ModelConfig& config, ordered_json& json) {
  ordered_json rope = json["rope_scaling"].is_null() ? ordered_json{{"rope_type", "default"}} : json["rope_scaling"];
  rope["rope_theta"] = json["rope_theta"];
  rope["llama_4_scaling_beta"] = as_written(config.ropes[0].query_beta);
  if (!rope.contains("original_max_position_embeddings"))
    rope["original_max_position_embeddings"] = config.ropes[0].scaling.original_max_position_embeddings;
  json.erase("rope_scaling");
  json.erase("rope_theta");
  json["rope_parameters"] = std::move(rope);
  json["sliding_window"] = nullptr;
}

// Its feed-forward blocks are as wide as the config says, with nothing to be made of that number.
void add_lfm2(const ModelConfig& config, ordered_json& json) {
  json["norm_eps"] = as_written(config.rms_norm_eps);
  json["conv_L_cache"] = config.short_conv.taps;
  json["conv_bias"] = config.short_conv.bias;
  if (config.family == "lfm2") json["block_auto_adjust_ff_dim"] = false;
  add_mixer_types(config, "conv", json);
}

}  // namespace

ordered_json hf_config_of(const ModelConfig& config, DType dtype) {
  ordered_json json = {{"architectures", {family_of(config).hf_class}},
                       {"model_type", config.family},
                       {"vocab_size", config.vocab_size},
                       {"hidden_size", config.hidden_size},
                       {"intermediate_size", config.intermediate_size},
                       {"num_hidden_layers", config.num_hidden_layers()},
                       {"num_attention_heads", config.num_attention_heads},
                       {"num_key_value_heads", config.num_key_value_heads},
                       {"head_dim", config.head_dim},
                       {"max_position_embeddings", config.max_position_embeddings},
                       {"rms_norm_eps", as_written(config.rms_norm_eps)},
                       {"rope_theta", as_written(config.ropes[0].theta)},
                       {"rope_scaling", rope_scaling_of(config)},
                       {"tie_word_embeddings", config.tie_word_embeddings},
                       {"torch_dtype", torch_name(dtype)},
                       {"use_cache", true}};
  if (config.family == "gemma2" || config.family == "gemma3_text") {
    add_gemma(config, json);
  } else {
    json["hidden_act"] = config.activation == Activation::gelu_tanh ? "gelu_pytorch_tanh" : "silu";
  }
  if (config.family == "phi3") add_phi3(config, json);
  if (config.family == "olmo3") add_olmo3(config, json);
  if (config.family == "exaone4") add_exaone4(config, json);
  if (config.family == "ministral3") add_ministral3(config, json);
  if (config.family == "lfm2" || config.family == "lfm2_moe") add_lfm2(config, json);
  if (config.layers_with(Mixer::gated_delta) > 0) add_gated_delta(config, json);
  if (config.family.starts_with("granite")) add_granite(config, json);
  if (config.family == "granitemoehybrid") add_granite_hybrid(config, json);
  if (config.experts.num_experts > 0) add_experts(config, json);
  // Qwen2's biases are a matter of its name.
  if (config.family == "qwen2") {
    if (config.attention_bias != AttentionBias::qkv)
      throw ConfigError("attention_bias", "a Qwen2 has those of q, k and v");
  } else if (config.family == "seed_oss") {
    json["attention_bias"] = config.attention_bias != AttentionBias::none;
    json["attention_out_bias"] = config.attention_bias == AttentionBias::qkvo;
  } else if (config.attention_bias == AttentionBias::qkv && config.family != "qwen2_moe") {
    throw ConfigError("attention_bias", "transformers has no " + config.family + " with biases of q, k and v alone");
  } else {
    json["attention_bias"] = config.attention_bias == AttentionBias::qkvo;
  }
  if (config.family == "smollm3") {
    ordered_json turned = ordered_json::array();
    for (const LayerConfig& layer : config.layers) turned.push_back(layer.rope == no_rope ? 0 : 1);
    json["no_rope_layers"] = std::move(turned);
  }
  return json;
}

}  // namespace lathe::nn
