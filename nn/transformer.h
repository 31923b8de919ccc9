// A decoder-only transformer driven by a config. The same forward serves training (packed sequences) and serving (pages): how
// attention finds its keys is the AttentionContext's business.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "autograd/ops/linear.h"
#include "autograd/ops/rope.h"
#include "nn/attention_context.h"
#include "nn/config.h"
#include "nn/linear.h"
#include "nn/parameter.h"
#include "nn/token_batch.h"
#include "nn/weights/peft.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

// `frozen`: weights are packed once, for inference and adapters. `trainable`: dense leaves with gradients.
enum class WeightMode { frozen, trainable };

struct TransformerOptions {
  DType dtype = DType::f32;  // of weights and activations: f32, bf16, or f64 (reference bodies)
  WeightMode weights = WeightMode::frozen;
  int64_t max_positions = 0;  // rotary tables are built for as many; 0: the model's context
  // The layers' linears as codes (frozen only, else ConfigError): nf4 with doubly quantised scales as QLoRA has it, or int8
  // blocks. The embedding and the output projection stay dense.
  std::optional<kernels::QuantizedFormat> quantized_linears = {};
  Device device = {};         // of weights, activations, adapters and gradients; f64 on the cpu only
};

struct ForwardOptions {
  // Each layer keeps only its input and is computed again in the backward, with the same bits.
  bool checkpoint_layers = false;
  AdapterMode adapter;
};

class Transformer {
 public:
  // Reads every weight of the config from the source. A weight that is missing, of another shape, or left over is a
  // FormatError that names it.
  Transformer(const ModelConfig& config, const WeightSource& source, const TransformerOptions& options);

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return options_.dtype; }
  Device device() const { return options_.device; }
  int64_t max_positions() const { return rope_.cos.dim(0); }

  // The hidden states after the last norm, [T, hidden_size]. With checkpoint_layers `attention` must outlive the backward.
  autograd::Variable forward(const TokenBatch& batch, AttentionContext& attention,
                             const ForwardOptions& options = {}) const;

  // The output projection [vocab, hidden]: the embedding itself where they are tied.
  const autograd::LinearWeight& output_weight() const { return lm_head_ ? *lm_head_ : *embedding_; }
  // f32 (f64 for f64) [T, vocab_size] of hidden states [T, hidden_size].
  Tensor logits(const Tensor& hidden) const;

  // Adds LoRA without effect to every linear that the config targets: A kaiming-uniform from the seed, B zero. ConfigError
  // when it targets nothing.
  void add_lora(const LoraConfig& config, uint64_t seed);
  // Adds an adapter with its weights. Every key must find its linear and have its shape, and every targeted linear its key:
  // else FormatError names the first that does not.
  void load_adapter(const PeftAdapter& adapter);
  // Copies of the adapter's masters, on the cpu.
  PeftAdapter adapter() const;
  bool has_adapter() const { return lora_config_.has_value(); }

  // What training updates: the adapter's A and B, or, in trainable mode without an adapter, every weight. A fixed order.
  std::vector<Parameter> trainable_parameters() const;

 private:
  struct Layer {
    autograd::Variable input_norm, post_attention_norm;
    Linear q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj;
  };
  autograd::Variable run_layer(const Layer& layer, int64_t index, const autograd::Variable& x, const TokenBatch& batch,
                               AttentionContext& attention, const AdapterMode& mode) const;
  std::vector<Linear*> linears();
  std::vector<const Linear*> linears() const;
  void attach_lora(Linear& linear, const LoraConfig& config, Tensor a, Tensor b);

  ModelConfig config_;
  TransformerOptions options_;
  autograd::RopeTables rope_;
  std::optional<autograd::LinearWeight> embedding_, lm_head_;
  autograd::Variable final_norm_;
  std::vector<Layer> layers_;
  std::vector<Parameter> weights_;  // trainable mode only
  std::optional<LoraConfig> lora_config_;
};

}  // namespace lathe::nn
