// The weights of one layer, from the config: the names and shapes of its linears and norms. What loads, counts or
// adapts weights, and the names in GGUF files, all follow from here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nn/config.h"

namespace lathe::nn {

// Names are Hugging Face's within a layer.
struct LinearShape {
  std::string name;  // "self_attn.q_proj"
  int64_t out = 0, in = 0;
  bool bias = false;  // [out]
  int64_t parameters() const { return out * in + (bias ? out : 0); }
};
struct NormShape {
  std::string name;  // "input_layernorm"
  int64_t size = 0;
};

struct LayerLayout {
  NormShape input_norm, feed_forward_norm;
  std::optional<NormShape> attention_output_norm, feed_forward_output_norm;
  std::optional<NormShape> q_norm, k_norm;
  LinearShape q_proj, k_proj, v_proj, o_proj;
  LinearShape gate_proj, up_proj, down_proj;

  // In a fixed order. A linear's number in the model, by which an adapter's random numbers are keyed, counts the
  // linears of all layers in this order, from 1.
  std::vector<LinearShape> linears() const { return {q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj}; }
  std::vector<NormShape> norms() const;
};

LayerLayout layer_layout(const ModelConfig& config, int64_t layer);

// "model.layers.3.": what comes before the names.
std::string layer_prefix(int64_t layer);

}  // namespace lathe::nn
