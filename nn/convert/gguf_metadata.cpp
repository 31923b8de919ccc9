#include "nn/convert/gguf_metadata.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "nn/families/family.h"

namespace lathe::nn {
namespace {

constexpr int64_t sigmoid_gating = 2;
constexpr double gemma3_local_theta = 10000.0;
constexpr int64_t gemma3_pattern = 6, olmo3_pattern = 4, exaone4_pattern = 4, exaone4_32b_layers = 64,
                  smollm3_interval = 4, gpt_oss_pattern = 2, gated_delta_interval = 4;
// Gemma's largest models, which llama.cpp knows by their layers, divide scores by the root of another number.
constexpr int64_t gemma2_27b_layers = 46, gemma3_27b_layers = 62;

[[noreturn]] void refuse(const std::string& key, const std::string& reason) {
  throw ConfigError(key, reason + ": llama.cpp would compute something else");
}

bool is_gemma(const ModelConfig& config) { return config.family == "gemma2" || config.family == "gemma3_text"; }
bool is_lfm2(const ModelConfig& config) { return config.family == "lfm2" || config.family == "lfm2_moe"; }
bool is_gated_delta(const ModelConfig& config) {
  return config.family == "qwen3_5_text" || config.family == "qwen3_5_moe_text" || config.family == "qwen3_next";
}

// Of the layers, what the architecture's readers take for granted because the format has no key for it.
void check_layers(const ModelConfig& config, GgufModel& model) {
  const int64_t count = config.num_hidden_layers();
  for (int64_t i = 0; i < count; ++i) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(i)];
    if (config.family == "gemma3_text") {
      const bool slides = (i + 1) % gemma3_pattern != 0;
      if ((layer.sliding_window > 0) != slides)
        refuse("sliding_window_pattern", "GGUF has a pattern of six layers only");
    } else if (config.family == "olmo3") {
      if ((layer.sliding_window > 0) != ((i + 1) % olmo3_pattern != 0))
        refuse("layer_types", "GGUF has a window in three of four layers only");
    } else if (config.family == "exaone4") {
      const bool slides = layer.sliding_window > 0, stays = !slides && layer.rope == no_rope;
      if ((slides || stays) && slides != ((i + 1) % exaone4_pattern != 0))
        refuse("layer_types", "GGUF has a window in three of four layers only");
      if (slides && i == 0 && count != exaone4_32b_layers)
        model.warnings.emplace_back("llama.cpp gives windows to an EXAONE 4 of 64 layers alone");
    } else if (config.family == "gpt_oss") {
      if ((layer.sliding_window > 0) != ((i + 1) % gpt_oss_pattern != 0))
        refuse("layer_types", "GGUF has a window in every other layer, from the first, only");
    } else if (config.family == "gemma2") {
      if ((layer.sliding_window > 0) != (i % 2 == 0))
        refuse("layer_types", "GGUF has a window in every other layer, from the first, only");
    } else if (config.family == "phi3") {
      if (layer.sliding_window != config.layers[0].sliding_window)
        refuse("layer_types", "GGUF has one sliding window for all layers");
      if (layer.sliding_window > 0 && i == 0)
        model.warnings.push_back("llama.cpp leaves out Phi-3's sliding window: its answers are the model's own up to " +
                                 std::to_string(layer.sliding_window) + " tokens");
    } else if (is_gated_delta(config)) {
      if ((layer.mixer == Mixer::attention) != ((i + 1) % gated_delta_interval == 0))
        refuse("layer_types", "GGUF has a " + config.family + " whose every fourth layer attends only");
    } else if (config.family == "smollm3") {
      if ((layer.rope == no_rope) != ((i + 1) % smollm3_interval == 0))
        refuse("no_rope_layers", "GGUF has every fourth layer without rope only");
    } else if (layer.sliding_window > 0 && model.warnings.empty()) {
      model.warnings.push_back(
          "GGUF has no key for this architecture's sliding window: answers are the model's own up "
          "to " +
          std::to_string(layer.sliding_window) + " tokens");
    }
    if (config.experts.num_experts > 0 && !layer.experts && config.family != "lfm2_moe")
      refuse("mlp_only_layers", "GGUF has experts in all layers of a model or in none");
  }
  if (config.family == "gemma3_text" && (config.ropes.size() != 2 || config.ropes[1].theta != gemma3_local_theta ||
                                         config.ropes[1].scaling.kind != RopeScalingKind::none))
    refuse("rope_local_base_freq", "GGUF has 10000 without scaling only");
  if (config.family == "olmo3" && (config.ropes.size() != 2 || config.ropes[1].theta != config.ropes[0].theta ||
                                   config.ropes[1].scaling.kind != RopeScalingKind::none))
    refuse("rope_parameters.sliding_attention", "GGUF has the base of the other layers without scaling only");
}

// Of the rest.
void check_model(const ModelConfig& config) {
  if (config.activation != (is_gemma(config)             ? Activation::gelu_tanh
                            : config.family == "gpt_oss" ? Activation::clamped_silu
                                                         : Activation::silu))
    refuse("hidden_act", "GGUF has no key for another activation than the family's");
  const bool undivided = config.family == "olmoe" || config.family == "qwen2_moe";
  if (config.experts.num_experts > 0 && config.experts.norm_topk_prob == undivided)
    refuse("norm_topk_prob", undivided
                                 ? std::string("GGUF has ") + (config.family == "olmoe" ? "an OLMoE" : "a Qwen2-MoE") +
                                       " whose experts' weights are not divided by their sum only"
                                 : "GGUF has experts whose weights are divided by their sum only");
  if (config.family == "qwen2_moe" && config.attention_bias != AttentionBias::qkv)
    refuse("qkv_bias", "GGUF has a Qwen2-MoE with biases of q, k and v only");
  if (config.family == "qwen3_next" && config.experts.num_experts == 0)
    refuse("num_experts", "GGUF has a Qwen3-Next with experts only");
  if (config.mamba2.proj_bias) refuse("mamba_proj_bias", "GGUF has Mamba-2 without biases of its linears only");
  if (config.layers_with(Mixer::mamba2) > 0 && (config.mamba2.dt_min != 0 || !std::isinf(config.mamba2.dt_max)))
    refuse("time_step_limit", "GGUF has steps of any size only");
  if (config.short_conv.bias) refuse("conv_bias", "GGUF has short convolutions without biases only");
  if (config.experts.sigmoids && !(config.experts.choice_bias && config.experts.routed_scale == 1))
    refuse(config.experts.choice_bias ? "routed_scaling_factor" : "use_expert_bias",
           "GGUF has an LFM2-MoE with a bias, whose weights are not multiplied, only");
  if (is_lfm2(config) && config.num_attention_heads * config.head_dim != config.hidden_size)
    refuse("head_dim", "GGUF has an LFM2 whose heads together are as wide as it is only");
  // llama.cpp's loader asks for no bias of the output projection, and refuses a file with more than it asked for.
  for (const char* without :
       {"gemma2", "gemma3_text", "granitemoehybrid", "lfm2", "lfm2_moe", "olmo2", "olmo3", "olmoe", "qwen3",
        "qwen3_5_text", "qwen3_5_moe_text", "qwen3_moe", "qwen3_next", "smollm3", "exaone4"})
    if (config.attention_bias != AttentionBias::none && config.family == without)
      refuse("attention_bias", "GGUF has none for " + config.family);
  if (config.family == "gpt_oss" && config.attention_bias != AttentionBias::qkvo)
    refuse("attention_bias", "GGUF has a gpt-oss with biases only");
  if (!is_gemma(config)) return;
  const bool largest =
      config.num_hidden_layers() == (config.family == "gemma2" ? gemma2_27b_layers : gemma3_27b_layers);
  const int64_t usual = largest ? config.hidden_size / config.num_attention_heads : config.head_dim;
  if (config.query_pre_attn_scalar != 0 && config.query_pre_attn_scalar != static_cast<double>(usual))
    refuse("query_pre_attn_scalar", "GGUF has " + std::to_string(usual) + " for this size only");
  if (config.family == "gemma3_text" && config.final_logit_softcapping != 0)
    refuse("final_logit_softcapping", "GGUF has none for Gemma 3");
  if (config.family == "gemma2" && !(config.attn_logit_softcapping > 0 && config.final_logit_softcapping > 0))
    refuse("attn_logit_softcapping", "GGUF has a Gemma 2 with both caps only");
}

// What Llama 3.1's scaling divides each frequency by (transformers' llama3 rule).
std::vector<float> llama3_factors(const RopeConfig& rope, int64_t head_dim) {
  const RopeScaling& s = rope.scaling;
  const auto context = static_cast<double>(s.original_max_position_embeddings);
  std::vector<float> factors;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    double factor = 1;
    if (wavelength > context / s.low_freq_factor) {
      factor = s.factor;
    } else if (wavelength >= context / s.high_freq_factor) {
      const double smooth = (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      factor = 1 / ((1 - smooth) / s.factor + smooth);
    }
    factors.push_back(static_cast<float>(factor));
  }
  return factors;
}

GgufTensorToWrite factors_tensor(const char* name, const std::vector<float>& factors) {
  return {{name, Shape{static_cast<int64_t>(factors.size())},
           [factors](int64_t, int64_t count, float* out) {
             if (count > 0) std::copy(factors.begin(), factors.end(), out);
           }},
          ggml_writer("F32")};
}

// The ramp is written, and what a reader's own factor for cos and sin has to be multiplied with.
void add_yarn(const ModelConfig& config, const std::string& prefix, GgufModel& model) {
  const RopeScaling& scaling = config.ropes[0].scaling;
  if (config.family != "gpt_oss") {
    if (!scaling.truncate) refuse("rope_scaling", "GGUF has yarn whose ramp begins and ends at whole dimensions only");
  } else if (scaling.truncate) {
    throw ConfigError("rope_scaling.truncate", "GGUF has no key for it, and false is what every gpt-oss has");
  } else {
    model.warnings.emplace_back(
        "llama.cpp lets yarn's ramp begin and end at whole dimensions, which this model does not: its angles are a "
        "little different");
  }
  const auto add = [&](const char* key, GgufValue value) {
    model.metadata.emplace_back(prefix + "rope.scaling." + key, std::move(value));
  };
  add("type", std::string("yarn"));
  add("factor", scaling.factor);
  add("original_context_length", scaling.original_max_position_embeddings);
  add("yarn_beta_fast", scaling.beta_fast);
  add("yarn_beta_slow", scaling.beta_slow);
  const double logarithm = scaling.factor > 1 ? 0.1 * std::log(scaling.factor) : 0, usual = 1 + logarithm;
  if (config.family == "ministral3") {
    const bool matters = logarithm > 0 && scaling.attention_factor > 0;
    return add("yarn_log_multiplier", matters ? (usual / scaling.attention_factor - 1) / logarithm : 1.0);
  }
  if (std::abs(scaling.attention_factor - usual) > 1e-9) add("yarn_attn_factor", scaling.attention_factor / usual);
}

// llama.cpp's Phi-3 has both lists of factors as tensors, and the length up to which the short ones hold.
void add_longrope(const RopeConfig& rope, const std::string& prefix, GgufModel& model) {
  model.metadata.emplace_back(prefix + "rope.scaling.attn_factor", rope.scaling.attention_factor);
  model.tensors.push_back(factors_tensor("rope_factors_long.weight", rope.scaling.long_factor));
  model.tensors.push_back(factors_tensor("rope_factors_short.weight", rope.scaling.short_factor));
}

void add_rope(const ModelConfig& config, const std::string& prefix, GgufModel& model) {
  const RopeConfig& rope = config.ropes[0];
  const bool phi3 = config.family == "phi3", turns_a_part = phi3 || is_gated_delta(config);
  if (rope.rotary_dim != 0 && rope.rotary_dim != config.head_dim && !turns_a_part)
    refuse("partial_rotary_factor", "GGUF has heads that turn whole for " + config.family);
  model.metadata.emplace_back(prefix + "rope.dimension_count",
                              rope.rotary_dim != 0 ? rope.rotary_dim : config.head_dim);
  model.metadata.emplace_back(prefix + "rope.freq_base", rope.theta);
  if (config.family == "gemma3_text" || config.family == "olmo3")
    model.metadata.emplace_back(prefix + "rope.freq_base_swa", config.ropes.at(1).theta);
  if (phi3)
    model.metadata.emplace_back(prefix + "rope.scaling.original_context_length",
                                rope.scaling.original_max_position_embeddings > 0
                                    ? rope.scaling.original_max_position_embeddings
                                    : config.max_position_embeddings);
  std::vector<float> factors = rope.frequency_factors;
  switch (rope.scaling.kind) {
    case RopeScalingKind::none: break;
    case RopeScalingKind::linear:
      model.metadata.emplace_back(prefix + "rope.scaling.type", std::string("linear"));
      model.metadata.emplace_back(prefix + "rope.scaling.factor", rope.scaling.factor);
      break;
    case RopeScalingKind::llama3: factors = llama3_factors(rope, config.head_dim); break;
    case RopeScalingKind::yarn: add_yarn(config, prefix, model); break;
    case RopeScalingKind::longrope:
      if (!phi3) refuse("rope_scaling", "GGUF has longrope for Phi-3 only");
      add_longrope(rope, prefix, model);
      break;
    case RopeScalingKind::dynamic: refuse("rope_scaling", "GGUF has no dynamic scaling");
  }
  if (!factors.empty()) model.tensors.push_back(factors_tensor("rope_freqs.weight", factors));
}

// One number, or one for each layer where some do not attend, which the interval of gated delta nets says.
GgufValue kv_heads_of(const ModelConfig& config) {
  const auto attends = [](const LayerConfig& layer) { return layer.mixer == Mixer::attention; };
  const bool listed = config.family == "granitemoehybrid";  // always, by its converter
  if ((std::ranges::all_of(config.layers, attends) && !listed) || is_gated_delta(config))
    return config.num_key_value_heads;
  std::vector<int64_t> heads;
  for (const LayerConfig& layer : config.layers) heads.push_back(attends(layer) ? config.num_key_value_heads : 0);
  return heads;
}

template <class Add>
void add_granite_hybrid(const ModelConfig& config, const Add& add) {
  add("rope.scaling.finetuned", config.layers[0].rope != no_rope);
  if (config.layers_with(Mixer::mamba2) == 0) return;
  const Mamba2Config& mamba = config.mamba2;
  add("ssm.conv_kernel", mamba.taps);
  add("ssm.state_size", mamba.heads.state_size);
  add("ssm.group_count", mamba.heads.groups);
  add("ssm.time_step_rank", mamba.heads.heads);
  add("ssm.inner_size", mamba.heads.out_columns());
}

// The keys that only some families have.
void add_own_fields(const ModelConfig& config, const std::string& prefix, GgufModel& model) {
  const auto add = [&](const char* key, GgufValue value) {
    model.metadata.emplace_back(prefix + key, std::move(value));
  };
  if (is_gemma(config) || config.family == "phi3" || config.family == "gpt_oss")
    add("attention.sliding_window", config.layers[0].sliding_window);
  const bool slides_at_all =
      std::ranges::any_of(config.layers, [](const LayerConfig& layer) { return layer.sliding_window > 0; });
  if (config.family == "olmo3" || (config.family == "exaone4" && slides_at_all)) {
    std::vector<bool> slides;
    for (const LayerConfig& layer : config.layers) slides.push_back(layer.sliding_window > 0);
    add("attention.sliding_window", config.layers[0].sliding_window);
    add("attention.sliding_window_pattern", std::move(slides));
  }
  if (config.family == "gemma2") {
    add("attn_logit_softcapping", config.attn_logit_softcapping);
    add("final_logit_softcapping", config.final_logit_softcapping);
  }
  if (config.family.starts_with("granite")) {
    add("attention.scale", config.attention_multiplier);
    add("embedding_scale", config.embedding_scale);
    add("residual_scale", config.residual_multiplier);
    add("logit_scale", config.logits_scaling);
  }
  if (config.family == "ministral3") {
    const RopeScaling& scaling = config.ropes[0].scaling;
    add("attention.temperature_scale", config.ropes[0].query_beta);
    if (scaling.kind == RopeScalingKind::none)
      add("rope.scaling.original_context_length", scaling.original_max_position_embeddings);
  }
  if (is_lfm2(config)) add("shortconv.l_cache", config.short_conv.taps);
  if (is_gated_delta(config)) {
    const GatedDeltaConfig& delta = config.gated_delta;
    add("ssm.conv_kernel", delta.taps);
    add("ssm.state_size", delta.heads.key_dim);
    add("ssm.group_count", delta.heads.key_heads);
    add("ssm.time_step_rank", delta.heads.value_heads);
    add("ssm.inner_size", delta.heads.out_columns());
    add("full_attention_interval", gated_delta_interval);
    // By which what is seen turns: of time, height and width, and a text's are all its place. llama.cpp asks for them.
    if (config.family != "qwen3_next") add("rope.dimension_sections", std::vector<int64_t>{11, 11, 10, 0});
  }
  if (config.family == "granitemoehybrid") add_granite_hybrid(config, add);
  if (config.experts.num_experts > 0) {
    add("expert_count", config.experts.num_experts);
    add("expert_used_count", config.experts.num_experts_per_tok);
  }
  if (config.family == "lfm2_moe") {
    add("leading_dense_block_count", std::ranges::count(config.layers, false, &LayerConfig::experts));
    add("expert_gating_func", sigmoid_gating);
  }
  if (config.family == "lfm2_moe" || config.family == "qwen2_moe" || config.family == "qwen3_moe" ||
      config.family == "gpt_oss" || (is_gated_delta(config) && config.experts.num_experts > 0))
    add("expert_feed_forward_length", config.experts.intermediate_size);
  if (config.experts.shared.intermediate_size > 0)
    add("expert_shared_feed_forward_length", config.experts.shared.intermediate_size);
}

}  // namespace

void add_gguf_metadata(const ModelConfig& config, const GgmlWriter& type, GgufModel& model) {
  check_layers(config, model);
  check_model(config);
  const Family& family = family_of(config);
  const std::string prefix = std::string(family.gguf_architecture) + ".";
  const auto add = [&](const std::string& key, GgufValue value) { model.metadata.emplace_back(key, std::move(value)); };
  add("general.architecture", std::string(family.gguf_architecture));
  add("general.type", std::string("model"));
  add("general.file_type", int64_t{type.file_type});
  add("general.quantization_version", int64_t{2});
  add(prefix + "vocab_size", config.vocab_size);
  add(prefix + "context_length", config.max_position_embeddings);
  add(prefix + "embedding_length", config.hidden_size);
  add(prefix + "block_count", config.num_hidden_layers());
  // Which has experts in all layers, and no width of other blocks.
  if (config.family != "qwen3_5_moe_text") add(prefix + "feed_forward_length", config.intermediate_size);
  add(prefix + "attention.head_count", config.num_attention_heads);
  add(prefix + "attention.head_count_kv", kv_heads_of(config));
  add(prefix + "attention.key_length", config.head_dim);
  add(prefix + "attention.value_length", config.head_dim);
  add(prefix + "attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  add_own_fields(config, prefix, model);
  add_rope(config, prefix, model);
}

}  // namespace lathe::nn
