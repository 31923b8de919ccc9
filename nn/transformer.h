// A decoder-only transformer driven by a config. The same forward serves training (packed sequences) and serving (pages): how
// attention finds its keys is the AttentionContext's business.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "autograd/variable.h"
#include "core/tensor.h"
#include "kernels/matmul/matmul.h"
#include "nn/attention_context.h"
#include "nn/config.h"
#include "nn/linear.h"
#include "nn/rope_table.h"
#include "nn/token_batch.h"
#include "nn/weights/peft.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

// `frozen`: weights are packed once, for inference and adapters. `trainable`: dense leaves with gradients.
enum class WeightMode { frozen, trainable };

struct TransformerOptions {
  DType dtype = DType::f32;  // of weights and activations: f32, bf16, or f64 (reference bodies)
  WeightMode weights = WeightMode::frozen;
};

struct NamedVariable {
  std::string name;  // Hugging Face's, or "base_model.model.….lora_A.weight" for adapters
  autograd::Variable variable;
};

class Transformer {
 public:
  // Reads every weight of the config from the source. A weight that is missing, of another shape, or left over is a
  // FormatError that names it.
  Transformer(const ModelConfig& config, const WeightSource& source, const TransformerOptions& options);

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return options_.dtype; }

  // The hidden states after the last norm, [T, hidden_size]. With `checkpoint_layers` each layer keeps only its input and is
  // computed again in the backward, with the same bits.
  autograd::Variable forward(const TokenBatch& batch, AttentionContext& attention, bool checkpoint_layers = false) const;

  // f32 [T, vocab_size] (f64 for f64) from hidden states.
  Tensor logits(const Tensor& hidden) const;
  // The output projection: the embedding itself where they are tied.
  const BaseWeight& output_weight() const { return lm_head_ ? *lm_head_ : embedding_; }

  // Adds zero-effect LoRA to every linear that the config targets: A kaiming-uniform from the seed, B zero. ConfigError when
  // a target matches nothing.
  void add_lora(const LoraConfig& config, uint64_t seed);
  // Loads an adapter's weights. Every key must find its linear with its shape; the first that does not is a FormatError.
  void load_adapter(const PeftAdapter& adapter);
  // Copies of the adapter's current weights.
  PeftAdapter adapter() const;
  bool has_adapter() const { return lora_config_.has_value(); }
  // Turns the adapter off and on without unloading it (DPO's reference, `eval` before and after).
  void set_adapter_enabled(bool enabled);
  // Adapters compute with copies in the model's dtype: call after each change of the f32 weights.
  void refresh_adapter();

  // What training updates: the adapter's A and B, or every weight in trainable mode. In a fixed order.
  std::vector<NamedVariable> trainable_parameters() const;
  int64_t parameter_count() const { return config_.parameter_count(); }

 private:
  struct Layer {
    autograd::Variable input_norm, post_attention_norm;
    Linear q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj;
  };
  autograd::Variable run_layer(const Layer& layer, int64_t index, const autograd::Variable& x, const TokenBatch& batch,
                               AttentionContext& attention) const;
  std::vector<Linear*> linears();
  std::vector<const Linear*> linears() const;

  ModelConfig config_;
  TransformerOptions options_;
  RopeTable rope_;
  BaseWeight embedding_;
  std::optional<BaseWeight> lm_head_;
  autograd::Variable final_norm_;
  std::vector<Layer> layers_;
  std::optional<LoraConfig> lora_config_;
};

}  // namespace lathe::nn
