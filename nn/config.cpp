#include "nn/config.h"

#include "core/error.h"
#include "nn/layer_layout.h"

namespace lathe::nn {

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
  for (const RopeConfig& rope : ropes) {
    need(rope.theta > 0, "rope_theta is not positive");
    need(rope.scaling.factor > 0, "rope_scaling.factor is not positive");
  }
  for (const LayerConfig& layer : layers) {
    need(layer.sliding_window >= 0, "sliding_window is negative");
    need(layer.rope >= 0 && layer.rope < static_cast<int64_t>(ropes.size()), "a layer has no rotary table");
  }
  for (const int32_t id : eos_token_ids) need(id >= 0 && id < vocab_size, "eos_token_id is outside the vocabulary");
  if (!wrong.empty()) throw ConfigError("model config", wrong);
}

int64_t ModelConfig::parameter_count() const {
  int64_t count = hidden_size + vocab_size * hidden_size * (tie_word_embeddings ? 1 : 2);
  for (int64_t i = 0; i < num_hidden_layers(); ++i) {
    const LayerLayout layer = layer_layout(*this, i);
    for (const LinearShape& linear : layer.linears()) count += linear.parameters();
    for (const NormShape& norm : layer.norms()) count += norm.size;
  }
  return count;
}

}  // namespace lathe::nn
