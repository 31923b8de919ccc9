#include "nn/families/hf_fields.h"

#include <algorithm>
#include <cmath>

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

std::vector<float> HfFields::numbers(const char* key) const {
  const ordered_json& value = required(key);
  if (!value.is_array())
    throw FormatError(file_, -1, prefix_ + key + ": expected a list of numbers, found " + json_excerpt(value));
  std::vector<float> result;
  for (const ordered_json& number : value)
    result.push_back(static_cast<float>(json_number(number, prefix_ + key, file_)));
  return result;
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

// What scales the attention of yarn and longrope where the file has no attention_factor.
double yarn_attention_factor(const HfFields& rope, double factor) {
  const auto magnitude = [factor](double scale) { return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0; };
  const double mscale = rope.number("mscale", 0), all = rope.number("mscale_all_dim", 0);
  return mscale != 0 && all != 0 ? magnitude(mscale) / magnitude(all) : magnitude(1);
}
double longrope_attention_factor(double factor, int64_t original) {
  return factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
}

// The scalings that know the context they stretch.
RopeScaling context_scaling(const HfFields& rope, RopeScalingKind kind, const RopeDefaults& defaults) {
  RopeScaling scaling;
  scaling.kind = kind;
  const int64_t original = rope.integer("original_max_position_embeddings", defaults.max_position_embeddings);
  scaling.original_max_position_embeddings =
      defaults.original_max_position_embeddings > 0 ? defaults.original_max_position_embeddings : original;
  if (scaling.original_max_position_embeddings < 2)
    throw ConfigError("rope_scaling", "original_max_position_embeddings: expected at least 2");
  const double stretch = static_cast<double>(defaults.max_position_embeddings) /
                         static_cast<double>(scaling.original_max_position_embeddings);
  scaling.factor = rope.number("factor", stretch);
  if (kind == RopeScalingKind::yarn) {
    scaling.beta_fast = rope.number("beta_fast", scaling.beta_fast);
    scaling.beta_slow = rope.number("beta_slow", scaling.beta_slow);
    scaling.truncate = rope.flag("truncate", true);
    scaling.attention_factor = rope.number("attention_factor", yarn_attention_factor(rope, scaling.factor));
  } else {
    scaling.short_factor = rope.numbers("short_factor");
    scaling.long_factor = rope.numbers("long_factor");
    scaling.attention_factor = rope.number(
        "attention_factor", longrope_attention_factor(scaling.factor, scaling.original_max_position_embeddings));
  }
  return scaling;
}

RopeScaling rope_scaling_from_hf(const HfFields& rope, const RopeDefaults& defaults) {
  RopeScaling scaling;
  const std::string type = rope.find("rope_type") ? rope.text("rope_type") : rope.text("type", "default");
  if (type == "default") return scaling;
  if (type == "yarn") return context_scaling(rope, RopeScalingKind::yarn, defaults);
  if (type == "longrope" || type == "su") return context_scaling(rope, RopeScalingKind::longrope, defaults);
  if (type == "linear") {
    scaling.kind = RopeScalingKind::linear;
  } else if (type == "dynamic") {
    scaling.kind = RopeScalingKind::dynamic;
    scaling.original_max_position_embeddings = defaults.max_position_embeddings;  // as transformers has it
  } else if (type == "llama3") {
    scaling.kind = RopeScalingKind::llama3;
    scaling.low_freq_factor = rope.number("low_freq_factor");
    scaling.high_freq_factor = rope.number("high_freq_factor");
    scaling.original_max_position_embeddings = rope.integer("original_max_position_embeddings");
  } else {
    throw ConfigError("rope_scaling",
                      "expected default, linear, llama3, yarn, dynamic or longrope, found " + json_excerpt(type));
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

RopeConfig read_rope(const HfFields& rope, const RopeDefaults& defaults) {
  return {.theta = rope.number("rope_theta", defaults.theta), .scaling = rope_scaling_from_hf(rope, defaults)};
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
                            {config.number("rope_theta", 10000.0), result.max_position_embeddings,
                             config.integer("original_max_position_embeddings", 0)})};
  result.activation = activation_from_hf(config);
  result.attention_bias = config.flag("attention_bias", false) ? AttentionBias::qkvo : AttentionBias::none;
  result.tie_word_embeddings = config.flag("tie_word_embeddings", false);
  result.eos_token_ids = config.token_ids("eos_token_id");
  return result;
}

void set_sparse_layers(ModelConfig& model, const HfFields& config) {
  const int64_t step = config.integer("decoder_sparse_step");
  if (step < 1) throw ConfigError("decoder_sparse_step", "expected at least 1");
  const std::vector<int32_t> dense = config.token_ids("mlp_only_layers");
  for (int64_t i = 0; i < model.num_hidden_layers(); ++i)
    model.layers[static_cast<size_t>(i)].experts = (i + 1) % step == 0 && std::ranges::find(dense, i) == dense.end();
}

Mixer mixer_by_type(const ordered_json& types, size_t layer, const std::string& word, Mixer other) {
  if (!types.is_array() || layer >= types.size()) throw ConfigError("layer_types", "expected a word for each layer");
  if (types[layer] == "full_attention") return Mixer::attention;
  if (types[layer] == word) return other;
  throw ConfigError("layer_types", "expected full_attention or " + word + ", found " + json_excerpt(types[layer]));
}

}  // namespace lathe::nn
