#include <nlohmann/json.hpp>

#include "nn/families/family.h"
#include "nn/families/json_fields.h"
#include "nn/weights/gguf.h"

namespace lathe::nn {
namespace {

RopeScaling rope_scaling_from_hf(const nlohmann::json& config) {
  RopeScaling scaling;
  const auto found = config.find("rope_scaling");
  if (found == config.end() || found->is_null()) return scaling;
  const std::string type = optional_field<std::string>(
      *found, "rope_type", optional_field<std::string>(*found, "type", "default"));
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

}  // namespace

ModelConfig llama_from_hf(const nlohmann::json& given) {
  const nlohmann::json config = with_rope_parameters(given);
  ModelConfig result;
  result.family = "llama";
  result.vocab_size = required_field<int64_t>(config, "vocab_size");
  result.hidden_size = required_field<int64_t>(config, "hidden_size");
  result.intermediate_size = required_field<int64_t>(config, "intermediate_size");
  result.num_hidden_layers = required_field<int64_t>(config, "num_hidden_layers");
  result.num_attention_heads = required_field<int64_t>(config, "num_attention_heads");
  result.num_key_value_heads = optional_field<int64_t>(config, "num_key_value_heads", result.num_attention_heads);
  if (result.num_attention_heads <= 0) throw ConfigError("num_attention_heads", "expected a positive number");
  result.head_dim = optional_field<int64_t>(config, "head_dim", result.hidden_size / result.num_attention_heads);
  result.max_position_embeddings = required_field<int64_t>(config, "max_position_embeddings");
  result.rms_norm_eps = optional_field<double>(config, "rms_norm_eps", 1e-6);
  result.rope_theta = optional_field<double>(config, "rope_theta", 10000.0);
  result.rope_scaling = rope_scaling_from_hf(config);
  result.tie_word_embeddings = optional_field<bool>(config, "tie_word_embeddings", false);
  result.eos_token_ids = eos_from_hf(config);
  if (optional_field<bool>(config, "attention_bias", false)) throw ConfigError("attention_bias", "true is not supported yet");
  if (optional_field<bool>(config, "mlp_bias", false)) throw ConfigError("mlp_bias", "true is not supported yet");
  const std::string activation = optional_field<std::string>(config, "hidden_act", "silu");
  if (activation != "silu") throw ConfigError("hidden_act", "expected silu, found " + activation);
  return result;
}

ModelConfig llama_from_gguf(const GgufFile& file) {
  ModelConfig result;
  result.family = "llama";
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2)
    throw FormatError(file.path().string(), -1, "has no token_embd.weight of two dimensions");
  result.vocab_size = embedding->shape[0];
  result.hidden_size = file.get<int64_t>("llama.embedding_length");
  result.intermediate_size = file.get<int64_t>("llama.feed_forward_length");
  result.num_hidden_layers = file.get<int64_t>("llama.block_count");
  result.num_attention_heads = file.get<int64_t>("llama.attention.head_count");
  result.num_key_value_heads =
      file.get_optional<int64_t>("llama.attention.head_count_kv").value_or(result.num_attention_heads);
  if (result.num_attention_heads <= 0)
    throw FormatError(file.path().string(), -1, "llama.attention.head_count: expected a positive number");
  result.head_dim = file.get_optional<int64_t>("llama.attention.key_length")
                        .value_or(result.hidden_size / result.num_attention_heads);
  result.max_position_embeddings = file.get<int64_t>("llama.context_length");
  result.rms_norm_eps = file.get<double>("llama.attention.layer_norm_rms_epsilon");
  result.rope_theta = file.get_optional<double>("llama.rope.freq_base").value_or(10000.0);
  const auto scaling = file.get_optional<std::string>("llama.rope.scaling.type");
  if (scaling && *scaling == "linear") {
    result.rope_scaling.kind = RopeScalingKind::linear;
    result.rope_scaling.factor = file.get<double>("llama.rope.scaling.factor");
  } else if ((scaling && *scaling != "none") || file.find_tensor("rope_freqs.weight") != nullptr) {
    throw ConfigError("llama.rope.scaling.type", "only none and linear can be read from a GGUF file yet");
  }
  result.tie_word_embeddings = file.find_tensor("output.weight") == nullptr;
  if (const auto eos = file.get_optional<int64_t>("tokenizer.ggml.eos_token_id"))
    result.eos_token_ids.push_back(static_cast<int32_t>(*eos));
  return result;
}

}  // namespace lathe::nn
