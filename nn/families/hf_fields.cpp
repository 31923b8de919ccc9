#include "nn/families/hf_fields.h"

#include "core/error.h"
#include "core/json.h"
#include "nn/families/family.h"

namespace lathe::nn {

using nlohmann::ordered_json;

HfFields::HfFields(ordered_json value, std::string file, std::string prefix)
    : values_(std::move(value)), file_(std::move(file)), prefix_(std::move(prefix)) {
  if (values_.is_object()) return;
  const std::string place = prefix_.empty() ? "" : prefix_.substr(0, prefix_.size() - 1) + ": ";
  throw FormatError(file_, -1, place + "expected a JSON object, found " + json_excerpt(values_));
}

HfFields HfFields::read(const std::filesystem::path& path) { return {read_json_file(path), path.string()}; }

const ordered_json* HfFields::find(const char* key) const {
  const auto found = values_.find(key);
  return found == values_.end() || found->is_null() ? nullptr : &*found;
}

const ordered_json& HfFields::required(const char* key) const {
  const ordered_json* value = find(key);
  if (value == nullptr) throw FormatError(file_, -1, "has no " + prefix_ + key);
  return *value;
}

int64_t HfFields::integer(const char* key) const {
  return json_integer(required(key), prefix_ + key, 0, INT32_MAX, file_);
}

double HfFields::number(const char* key) const { return json_number(required(key), prefix_ + key, file_); }

std::string HfFields::text(const char* key) const {
  const ordered_json& value = required(key);
  if (!value.is_string())
    throw FormatError(file_, -1, prefix_ + key + ": expected a text, found " + json_excerpt(value));
  return value.get<std::string>();
}

bool HfFields::flag(const char* key, bool otherwise) const {
  const ordered_json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean())
    throw FormatError(file_, -1, prefix_ + key + ": expected true or false, found " + json_excerpt(*value));
  return value->get<bool>();
}

std::vector<int32_t> HfFields::token_ids(const char* key) const {
  const ordered_json* value = find(key);
  if (value == nullptr) return {};
  std::vector<int32_t> ids;
  for (const ordered_json& id : value->is_array() ? *value : ordered_json::array({*value}))
    ids.push_back(static_cast<int32_t>(json_integer(id, prefix_ + key, 0, INT32_MAX, file_)));
  return ids;
}

HfFields HfFields::object(const char* key) const {
  const ordered_json* value = find(key);
  return {value == nullptr ? ordered_json::object() : *value, file_, prefix_ + key + "."};
}

void HfFields::set_default(const char* key, ordered_json value) {
  if (!values_.contains(key)) values_[key] = std::move(value);
}

namespace {

RopeScaling rope_scaling_from_hf(const HfFields& rope) {
  RopeScaling scaling;
  const std::string type = rope.find("rope_type") ? rope.text("rope_type") : rope.text("type", "default");
  if (type == "default") return scaling;
  if (type == "linear") {
    scaling.kind = RopeScalingKind::linear;
  } else if (type == "llama3") {
    scaling.kind = RopeScalingKind::llama3;
    scaling.low_freq_factor = rope.number("low_freq_factor");
    scaling.high_freq_factor = rope.number("high_freq_factor");
    scaling.original_max_position_embeddings = rope.integer("original_max_position_embeddings");
  } else {
    throw ConfigError("rope_scaling", "expected default, linear or llama3, found " + json_excerpt(type));
  }
  scaling.factor = rope.number("factor");
  return scaling;
}

Activation activation_from_hf(const HfFields& config) {
  const std::string name = config.text("hidden_act", "silu");
  if (name == "silu") return Activation::silu;
  if (name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  throw ConfigError("hidden_act", "expected silu or gelu_pytorch_tanh, found " + json_excerpt(name));
}

}  // namespace

RopeConfig read_rope(const HfFields& rope, double theta) {
  return {.theta = rope.number("rope_theta", theta), .scaling = rope_scaling_from_hf(rope)};
}

ModelConfig read_hf_fields(const HfFields& config) {
  ModelConfig result;
  result.family = config.text("model_type");
  result.vocab_size = config.integer("vocab_size");
  result.hidden_size = config.integer("hidden_size");
  result.intermediate_size = config.integer("intermediate_size");
  result.layers.resize(layer_count("num_hidden_layers", config.integer("num_hidden_layers")));
  result.num_attention_heads = config.integer("num_attention_heads");
  result.num_key_value_heads = config.integer("num_key_value_heads", result.num_attention_heads);
  if (result.num_attention_heads <= 0) throw ConfigError("num_attention_heads", "expected a positive number");
  result.head_dim = config.integer("head_dim", result.hidden_size / result.num_attention_heads);
  result.max_position_embeddings = config.integer("max_position_embeddings");
  result.rms_norm_eps = config.number("rms_norm_eps", 1e-6);
  // transformers 5 moved rope_theta and the scaling into "rope_parameters".
  result.ropes = {read_rope(config.object(config.find("rope_parameters") ? "rope_parameters" : "rope_scaling"),
                            config.number("rope_theta", 10000.0))};
  result.activation = activation_from_hf(config);
  result.attention_bias = config.flag("attention_bias", false) ? AttentionBias::qkvo : AttentionBias::none;
  result.tie_word_embeddings = config.flag("tie_word_embeddings", false);
  result.eos_token_ids = config.token_ids("eos_token_id");
  return result;
}

}  // namespace lathe::nn
