#include "nn/convert/hf_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>

#include "core/error.h"
#include "nn/families/family.h"
#include "nn/layer_layout.h"

namespace lathe::nn {
namespace {

using nlohmann::ordered_json;

struct HfName {
  const char* family;
  const char* architecture;
};
constexpr HfName architectures[] = {{"llama", "LlamaForCausalLM"},     {"mistral", "MistralForCausalLM"},
                                    {"qwen2", "Qwen2ForCausalLM"},     {"qwen3", "Qwen3ForCausalLM"},
                                    {"smollm3", "SmolLM3ForCausalLM"}, {"gemma3_text", "Gemma3ForCausalLM"}};

const char* architecture_of(const std::string& family) {
  for (const HfName& name : architectures)
    if (family == name.family) return name.architecture;
  throw ConfigError("family", family + " cannot be written as a Hugging Face directory yet");
}

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

ordered_json rope_scaling_of(const RopeConfig& rope, int64_t head_dim) {
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
    default: throw ConfigError("rope_scaling", "this kind cannot be written to config.json yet");
  }
}

// GGUF holds numbers in f32: 1e-05 again, not 9.999999747378752e-06, which rounds to the same.
double as_written(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), static_cast<float>(value)).ptr;
  double shortest = value;
  std::from_chars(text, end, shortest);
  return static_cast<float>(value) == value ? shortest : value;
}

// 256, not 256.0: transformers wants an integer where its class says one.
ordered_json whole_where_it_is(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

void add_gemma3(const ModelConfig& config, ordered_json& json) {
  json["hidden_activation"] = "gelu_pytorch_tanh";
  json["query_pre_attn_scalar"] = whole_where_it_is(
      config.query_pre_attn_scalar != 0 ? config.query_pre_attn_scalar : static_cast<double>(config.head_dim));
  json["rope_local_base_freq"] = config.ropes.at(1).theta;
  ordered_json types = ordered_json::array();
  for (const LayerConfig& layer : config.layers) {
    types.push_back(layer.sliding_window > 0 ? "sliding_attention" : "full_attention");
    if (layer.sliding_window > 0) json["sliding_window"] = layer.sliding_window;
  }
  json["layer_types"] = std::move(types);
}

// What the family's directories hold of a norm is its weight less this.
double hf_norm_offset(const std::string& family) { return family == "gemma3_text" ? 1 : 0; }

}  // namespace

ordered_json hf_config_of(const ModelConfig& config, DType dtype) {
  ordered_json json = {{"architectures", {architecture_of(config.family)}},
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
                       {"rope_scaling", rope_scaling_of(config.ropes[0], config.head_dim)},
                       {"tie_word_embeddings", config.tie_word_embeddings},
                       {"torch_dtype", torch_name(dtype)},
                       {"use_cache", true}};
  if (config.family == "gemma3_text") {
    add_gemma3(config, json);
  } else {
    json["hidden_act"] = config.activation == Activation::silu ? "silu" : "gelu_pytorch_tanh";
  }
  // Qwen2's biases are a matter of its name.
  if (config.family == "qwen2") {
    if (config.attention_bias != AttentionBias::qkv)
      throw ConfigError("attention_bias", "a Qwen2 has those of q, k and v");
  } else if (config.attention_bias == AttentionBias::qkv) {
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

std::vector<SafetensorsToWrite> hf_weights_of(const ModelFiles& files, DType dtype) {
  std::set<std::string> places;
  for (const auto& [gguf_name, place] : gguf_places(files.config)) places.insert(place.name);
  const double added = files.gguf ? hf_norm_offset(files.config.family) - files.config.norm_weight_offset : 0;
  const WeightSource* source = files.weights.get();
  std::vector<SafetensorsToWrite> weights;
  for (const WeightInfo& info : source->weights()) {
    if (info.name == "rope_freqs.weight") continue;  // config.json says it
    if (files.gguf && !places.contains(info.name))
      throw FormatError(files.path.string(), -1, info.name + " has no place in transformers' " + files.config.family);
    if (info.name == "lm_head.weight" && files.config.tie_word_embeddings) continue;
    const bool shifted = added != 0 && info.shape.rank() == 1 && info.name.ends_with("norm.weight");
    const auto offset = static_cast<float>(shifted ? added : 0);
    const int64_t columns = info.shape.rank() > 0 ? info.shape[-1] : 1;
    weights.push_back({{info.name, info.shape,
                        [=, name = info.name](int64_t first, int64_t count, float* out) {
                          source->read_rows(name, first, count, out);
                          for (int64_t i = 0; shifted && i < count * columns; ++i) out[i] -= offset;
                        }},
                       dtype});
  }
  return weights;
}

}  // namespace lathe::nn
