// A linear layer: a base weight and, where an adapter targets it, its LoRA.
#pragma once

#include <optional>
#include <string>

#include "autograd/ops/linear.h"
#include "nn/parameter.h"

namespace lathe::nn {

// What changes from call to call, not from layer to layer.
struct AdapterMode {
  bool enabled = true;
  // Dropout is for training only: probability 0 elsewhere.
  uint64_t dropout_seed = 0;
  uint32_t dropout_step = 0;
  bool training = false;
};

struct LoraLayer {
  Parameter a, b;  // [r, in], [out, r]
  float scaling = 1.0f;
  float dropout = 0.0f;
  uint16_t dropout_stream = 0;  // unique in the model
};

struct Linear {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  autograd::LinearWeight weight;
  std::optional<LoraLayer> lora;

  // x [T, in] → [T, out], plus `residual` [T, out] where it is defined.
  autograd::Variable operator()(const autograd::Variable& x, const autograd::SequenceLayout& layout, const AdapterMode& mode,
                                const autograd::Variable& residual = {}) const;
};

}  // namespace lathe::nn
