// A decoder-only transformer driven by a config. The same forward serves training (packed sequences) and serving
// (pages): how attention finds its keys is the AttentionContext's business.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "nn/adapter.h"
#include "nn/attention_block.h"
#include "nn/attention_context.h"
#include "nn/config.h"
#include "nn/feed_forward_block.h"
#include "nn/gated_delta_block.h"
#include "nn/linear.h"
#include "nn/lora_start.h"
#include "nn/mamba2_block.h"
#include "nn/parameter.h"
#include "nn/quantization.h"
#include "nn/short_conv_block.h"
#include "nn/token_batch.h"
#include "nn/weights/peft.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

class WeightLoader;

// `frozen`: weights are packed once, for inference and adapters. `trainable`: dense leaves with gradients.
enum class WeightMode { frozen, trainable };

struct TransformerOptions {
  DType dtype = DType::f32;  // of weights and activations: f32, bf16, f16, or f64 (reference bodies)
  WeightMode weights = WeightMode::frozen;
  int64_t max_positions = 0;  // rotary tables are built for as many; 0: the model's context
  // The layers' linears as codes (frozen only, else ConfigError). Where the source has codes itself, these count.
  std::optional<Quantization> quantized_linears = {};
  // Of matrices in a GGUF file's blocks or, beside f32 on the cpu, in bf16: `keep` is for inference (frozen, no
  // quantized_linears; widened elsewhere). What samples for a trainer must be what the trainer has: training widens.
  StoredBlockUse stored_blocks = StoredBlockUse::widen;
  Device device = {};  // of weights, activations, adapters and gradients; f64 on the cpu only
};

struct ForwardOptions {
  // Each layer keeps only its input and is computed again in the backward, with the same bits.
  bool checkpoint_layers = false;
  AdapterMode adapter;
};

// The name of an adapter that nobody named; PEFT's.
inline constexpr std::string_view default_adapter = "default";

class Transformer {
 public:
  // Reads every weight of the config from the source; a tied embedding may be called lm_head.weight there. A weight
  // that is missing, of another shape, or left over is a FormatError that names it.
  Transformer(const ModelConfig& config, const WeightSource& source, const TransformerOptions& options);

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return options_.dtype; }
  Device device() const { return options_.device; }
  int64_t max_positions() const { return max_positions_; }

  // The hidden states after the last norm, divided by the config's logits_scaling, [T, hidden_size]: their products
  // with output_weight(), capped by softcap(), are the logits. With checkpoint_layers `attention` must outlive the
  // backward. A sequence's rows, and the gradients of its adapter, do not depend on the adapters of other sequences.
  // ConfigError for an adapter that the model does not have.
  autograd::Variable forward(const TokenBatch& batch, AttentionContext& attention,
                             const ForwardOptions& options = {}) const;

  // Whether a forward waits for a device to tell what routers have chosen (nn/experts.h): it cannot be captured as a
  // graph. `adapters` as TokenBatch has them. Where nothing is recorded, and where that is.
  bool asks_the_host(const std::vector<std::string>& adapters) const;
  bool asks_the_host_in_training() const;

  // The output projection [vocab, hidden]: the embedding itself where they are tied, or the adapter's own, where the
  // model has one that brings its own (modules_to_save). Such an adapter is alone on its model, and every sequence uses
  // it: else ConfigError.
  const autograd::LinearWeight& output_weight() const;
  // What caps the logits (kernels/softcap/softcap.h), for linear_cross_entropy and token_logprobs; 0: nothing.
  float softcap() const { return static_cast<float>(config_.final_logit_softcapping); }
  // f32 (f64 for f64) [T, vocab_size] of hidden states [T, hidden_size], capped and divided by the temperature as
  // kernels::linear_cross_entropy divides them: log-probabilities of these are the bits of that operation's.
  Tensor logits(const Tensor& hidden, float temperature = 1.0f) const;

  // A model may hold any number of adapters, each with a name of its own (else ConfigError); TokenBatch::adapters
  // says who uses which.

  // Adds LoRA to every linear that the config targets, as its init_lora_weights says (nn/lora_start.h): by default
  // without effect, A kaiming-uniform from the seed, B zero (of the embedding A zero, B normal). With DoRA, the
  // magnitudes are the norms of the weight's rows; modules_to_save begin as the base's. ConfigError when it targets
  // nothing.
  void add_lora(const LoraConfig& config, uint64_t seed, std::string_view name = default_adapter);
  // Adds an adapter with its weights. Every key must find its linear and have its shape, and every targeted linear
  // its key: else FormatError names the first that does not.
  void load_adapter(const PeftAdapter& adapter, std::string_view name = default_adapter);
  void remove_adapter(std::string_view name);
  bool has_adapter() const { return !adapters_.empty(); }
  std::vector<std::string> adapter_names() const;  // sorted
  // Copies of the adapter's masters, on the cpu. One that began as a part of the base has what it began as beside it,
  // in twice its rank: as it is, it goes with the base.
  PeftAdapter adapter(std::string_view name = default_adapter) const;

  // What training updates: A, B and magnitude of that adapter's linears, then A and B of experts (one A of gate and
  // up), then of the embedding, then modules_to_save,
  // or, in trainable mode without an adapter, every weight. A fixed order. They share the model's memory: who changes
  // them changes the model.
  std::vector<Parameter> trainable_parameters(std::string_view adapter = default_adapter);
  // What is no parameter although the model's directory has it: by their names, as they are held.
  std::vector<std::pair<std::string, Tensor>> constants() const;

 private:
  struct Layer {
    using Mixing = std::variant<AttentionBlock, ShortConvBlock, GatedDeltaBlock, Mamba2Block>;
    Mixing mixer;
    FeedForwardBlock feed_forward;
    autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows, AttentionContext& context) const {
      return feed_forward(std::visit([&](const auto& block) { return block(x, rows, context); }, mixer), rows);
    }
  };
  Layer load_layer(int64_t index, WeightLoader& loader, const std::vector<autograd::RopeTables>& ropes) const;

  // What adapters may target, in the order of LayerLayout::linears().
  std::vector<Linear*> linears();
  std::vector<const Linear*> linears() const;
  std::string listed_adapters() const;
  const Adapter& adapter_named(std::string_view name) const;
  void check_new_name(std::string_view name) const;
  LoraLayer make_lora(std::string_view module, const LoraConfig& config, const LoraWeights& weights) const;
  void attach_lora(Linear& linear, uint16_t number, std::string_view name, const LoraConfig& config,
                   const LoraWeights& weights, bool from_base = false);
  LoraWeights starting_weights(const Linear& linear, uint16_t number, const LoraConfig& config,
                               const ParsedLoraStart& start, uint64_t seed) const;
  void add_expert_parameters(std::string_view adapter, std::vector<Parameter>& parameters);
  void attach_expert_lora(std::string_view name, const LoraConfig& config,
                          const std::map<std::string, LoraWeights>& modules);
  std::map<std::string, LoraWeights> starting_expert_weights(const LoraConfig& config, const ParsedLoraStart& start,
                                                             uint64_t seed) const;
  void attach_saved(Adapter& adapter, const std::string& module, const Tensor& weight);
  void add_adapter(std::string_view name, Adapter adapter);
  void check_embedding_base(const Tensor& given) const;
  Tensor own_weight(const std::string& module) const;
  BatchRows rows_of(const TokenBatch& batch, const AdapterMode& mode) const;
  void check_output_weights(const BatchRows& rows, int64_t sequences) const;
  autograd::Variable embed(const TokenBatch& batch, const BatchRows& rows) const;

  ModelConfig config_;
  TransformerOptions options_;
  int64_t max_positions_ = 0;
  std::optional<autograd::LinearWeight> embedding_, lm_head_;
  autograd::Variable final_norm_;
  std::vector<Layer> layers_;
  std::vector<Parameter> weights_;  // trainable mode only
  std::map<std::string, Adapter, std::less<>> adapters_;
  std::optional<autograd::LinearWeight> adapter_head_;  // the only adapter's own output projection
};

}  // namespace lathe::nn
