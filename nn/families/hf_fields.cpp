#include "nn/families/hf_fields.h"

#include "nn/families/family.h"

namespace lathe::nn {
namespace {

RopeScaling rope_scaling_from_hf(const nlohmann::json& config) {
  RopeScaling scaling;
  const auto found = config.find("rope_scaling");
  if (found == config.end() || found->is_null()) return scaling;
  const std::string type =
      optional_field<std::string>(*found, "rope_type", optional_field<std::string>(*found, "type", "default"));
  if (type == "default") return scaling;
  scaling.factor = required_field<double>(*found, "factor");
  if (type == "linear") {
    scaling.kind = RopeScalingKind::linear;
  } else if (type == "llama3") {
    scaling.kind = RopeScalingKind::llama3;
    scaling.low_freq_factor = required_field<double>(*found, "low_freq_factor");
    scaling.high_freq_factor = required_field<double>(*found, "high_freq_factor");
    scaling.original_max_position_embeddings = required_field<int64_t>(*found, "original_max_position_embeddings");
  } else {
    throw ConfigError("rope_scaling", "expected default, linear or llama3, found " + type);
  }
  return scaling;
}

// transformers 5 moved rope_theta and the scaling into "rope_parameters".
nlohmann::json with_rope_parameters(const nlohmann::json& config) {
  nlohmann::json merged = config;
  const auto found = config.find("rope_parameters");
  if (found == config.end() || !found->is_object()) return merged;
  if (found->contains("rope_theta")) merged["rope_theta"] = (*found)["rope_theta"];
  merged["rope_scaling"] = *found;
  return merged;
}

std::vector<int32_t> eos_from_hf(const nlohmann::json& config) {
  const auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return {};
  if (found->is_array()) return found->get<std::vector<int32_t>>();
  return {static_cast<int32_t>(required_field<int64_t>(config, "eos_token_id"))};
}

Activation activation_from_hf(const nlohmann::json& config) {
  const std::string name = optional_field<std::string>(config, "hidden_act", "silu");
  if (name == "silu") return Activation::silu;
  if (name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  throw ConfigError("hidden_act", "expected silu or gelu_pytorch_tanh, found " + name);
}

}  // namespace

ModelConfig read_hf_fields(const nlohmann::json& given) {
  const nlohmann::json config = with_rope_parameters(given);
  ModelConfig result;
  result.family = required_field<std::string>(config, "model_type");
  result.vocab_size = required_field<int64_t>(config, "vocab_size");
  result.hidden_size = required_field<int64_t>(config, "hidden_size");
  result.intermediate_size = required_field<int64_t>(config, "intermediate_size");
  result.layers.resize(layer_count("num_hidden_layers", required_field<int64_t>(config, "num_hidden_layers")));
  result.num_attention_heads = required_field<int64_t>(config, "num_attention_heads");
  result.num_key_value_heads = optional_field<int64_t>(config, "num_key_value_heads", result.num_attention_heads);
  if (result.num_attention_heads <= 0) throw ConfigError("num_attention_heads", "expected a positive number");
  result.head_dim = optional_field<int64_t>(config, "head_dim", result.hidden_size / result.num_attention_heads);
  result.max_position_embeddings = required_field<int64_t>(config, "max_position_embeddings");
  result.rms_norm_eps = optional_field<double>(config, "rms_norm_eps", 1e-6);
  result.ropes = {{optional_field<double>(config, "rope_theta", 10000.0), rope_scaling_from_hf(config)}};
  result.activation = activation_from_hf(config);
  result.attention_bias = optional_field<bool>(config, "attention_bias", false);
  result.tie_word_embeddings = optional_field<bool>(config, "tie_word_embeddings", false);
  result.eos_token_ids = eos_from_hf(config);
  return result;
}

}  // namespace lathe::nn
