// The weights of one layer, from the config: the names and shapes of its linears and norms. What loads, counts or
// adapts weights, and the names in GGUF files, all follow from here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
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
// Whether ModelConfig::norm_weight_offset counts for the weight of this name: a norm's, but for that of a gated delta
// net's heads.
bool has_norm_offset(std::string_view name);
// Of a convolution over tokens, each column by itself.
struct ConvShape {
  std::string name;  // "conv.conv", whose weight is [columns, 1, taps]
  int64_t columns = 0, taps = 0;
  bool bias = false;  // [columns]
  int64_t parameters() const { return columns * (taps + (bias ? 1 : 0)); }
};
struct ExpertShape {
  LinearShape gate_proj, up_proj, down_proj;
};

struct LayerLayout {
  std::optional<NormShape> input_norm, feed_forward_norm;
  std::optional<NormShape> attention_output_norm, feed_forward_output_norm;
  std::optional<NormShape> q_norm, k_norm;
  std::optional<NormShape> sinks;     // of attention, [heads]: no norm, and no ".weight" stands behind its name
  std::vector<LinearShape> qkv_proj;  // q, k and v, or one linear of them all
  std::optional<LinearShape> o_proj;
  std::optional<ConvShape> conv;  // and the linears around it, in place of attention; of Mamba-2 with more beside it
  std::optional<LinearShape> conv_in_proj, conv_out_proj;
  // Of a gated delta net, in place of attention, beside a convolution: q, k and v as one, z, b and a; or
  // two, of q, k, v and z, and of b and a.
  std::vector<LinearShape> delta_in_proj;
  std::optional<LinearShape> delta_out_proj;
  std::optional<NormShape> delta_norm;            // of each value head
  std::optional<NormShape> delta_a_log, dt_bias;  // [value heads], no norms, as sinks
  std::optional<NormShape> mamba_norm;            // of what all heads of Mamba-2 give
  std::optional<NormShape> mamba_a_log, mamba_d;  // [heads], as dt_bias, which it has as well
  // gate and up, or one linear of both. With experts they are those of the one that all tokens share, if there is one.
  std::vector<LinearShape> gate_up_proj;
  std::optional<LinearShape> down_proj;
  std::optional<LinearShape> shared_gate;  // [1, hidden], of the shared expert
  std::optional<LinearShape> router;       // [experts, hidden]
  std::optional<NormShape> choice_bias;    // [experts]: no norm, as sinks, and nothing that trains
  std::vector<ExpertShape> experts;

  // What adapters may target, in a fixed order. A linear's number in the model, by which an adapter's random numbers
  // are keyed, counts the linears of all layers in this order, from 1.
  std::vector<LinearShape> linears() const;
  // These, then the router, then each expert's gate, up and down.
  std::vector<LinearShape> linears_and_experts() const;
  // Gate and up, or both in one, and down, which all tokens go through.
  std::vector<LinearShape> feed_forward_linears() const;
  std::vector<NormShape> norms() const;
  // Those whose names have no ".weight" behind them.
  std::vector<NormShape> bare_vectors() const;
};

LayerLayout layer_layout(const ModelConfig& config, int64_t layer);

// "model.layers.3.": what comes before the names.
std::string layer_prefix(int64_t layer);

}  // namespace lathe::nn
