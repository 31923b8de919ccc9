#include "nn/config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "nn/layer_layout.h"

namespace lathe::nn {
namespace {

// Divisors of frequencies below this would leave the range of f32; no model is near it.
constexpr double least_rope_factor = 1e-6;

// Models are counted in 64 bits; none is near it.
constexpr int64_t most_parameters = int64_t{1} << 60;

template <class Number>
Number count_parameters(const ModelConfig& config) {
  Number count = static_cast<Number>(config.hidden_size) + static_cast<Number>(config.vocab_size) *
                                                               static_cast<Number>(config.hidden_size) *
                                                               (config.tie_word_embeddings ? 1 : 2);
  for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
    const LayerLayout layer = layer_layout(config, i);
    for (const LinearShape& linear : layer.linears()) count += static_cast<Number>(linear.parameters());
    for (const NormShape& norm : layer.norms()) count += static_cast<Number>(norm.size);
  }
  return count;
}

std::string excerpt(double value) { return json_excerpt(value); }

template <class Need>
void check_rope(const RopeConfig& rope, int64_t head_dim, const Need& need) {
  need(std::isfinite(rope.theta) && rope.theta >= 1,
       "rope_theta = " + excerpt(rope.theta) + " is no finite number of at least 1");
  const auto divides = [&need](double factor, const std::string& key) {
    need(std::isfinite(factor) && factor >= least_rope_factor,
         key + " = " + excerpt(factor) + " is no finite positive number");
  };
  const RopeScaling& scaling = rope.scaling;
  if (scaling.kind != RopeScalingKind::none) divides(scaling.factor, "rope_scaling.factor");
  if (scaling.kind == RopeScalingKind::llama3) {
    divides(scaling.low_freq_factor, "rope_scaling.low_freq_factor");
    divides(scaling.high_freq_factor, "rope_scaling.high_freq_factor");
    need(scaling.low_freq_factor < scaling.high_freq_factor,
         "rope_scaling.low_freq_factor = " + excerpt(scaling.low_freq_factor) +
             " is not below rope_scaling.high_freq_factor = " + excerpt(scaling.high_freq_factor));
    need(scaling.original_max_position_embeddings > 0, "rope_scaling.original_max_position_embeddings is not positive");
  }
  const std::vector<float>& factors = rope.frequency_factors;
  need(factors.empty() || static_cast<int64_t>(factors.size()) == head_dim / 2,
       "there are " + std::to_string(factors.size()) + " frequency factors (rope_freqs) for the " +
           std::to_string(head_dim / 2) + " frequencies of a head");
  for (const float factor : factors) {
    if (std::isfinite(factor) && factor >= least_rope_factor) continue;
    divides(factor, "a frequency factor (rope_freqs)");
    break;
  }
}

}  // namespace

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
  need(std::isfinite(query_pre_attn_scalar) && query_pre_attn_scalar >= 0, "query_pre_attn_scalar is negative");
  for (const RopeConfig& rope : ropes) check_rope(rope, head_dim, need);
  for (const LayerConfig& layer : layers) {
    need(layer.sliding_window >= 0, "sliding_window is negative");
    need(layer.rope >= no_rope && layer.rope < static_cast<int64_t>(ropes.size()), "a layer has no rotary table");
  }
  for (const int32_t id : eos_token_ids) need(id >= 0 && id < vocab_size, "eos_token_id is outside the vocabulary");
  // Each below 2^31, as checked above, so that what is multiplied here fits.
  if (wrong.empty())
    need(num_attention_heads * head_dim < (int64_t{1} << 31),
         "num_attention_heads · head_dim = " + std::to_string(num_attention_heads * head_dim) + " is out of range");
  if (wrong.empty())
    need(count_parameters<double>(*this) <= static_cast<double>(most_parameters),
         "it has more than 2^60 parameters: sizes and layers that no memory holds");
  if (!wrong.empty()) throw ConfigError("model config", wrong);
}

int64_t ModelConfig::parameter_count() const { return count_parameters<int64_t>(*this); }

}  // namespace lathe::nn
