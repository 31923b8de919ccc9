#include "nn/transformer.h"

#include <algorithm>

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/checkpoint.h"
#include "autograd/ops/rms_norm.h"
#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"
#include "kernels/softcap/softcap.h"
#include "nn/layer_layout.h"
#include "nn/rope_table.h"
#include "nn/weight_loader.h"

namespace lathe::nn {

using autograd::Variable;

namespace {

// As transformers keeps a scale beside the weights: in their dtype.
double rounded_to(double value, DType dtype) {
  if (dtype == DType::f64) return value;
  const Tensor exact = Tensor::of<float>(std::vector<float>{static_cast<float>(value)}, {1});
  return kernels::cast(kernels::cast(exact, dtype), DType::f32).data<float>()[0];
}

// One layer's weights, taken out of the loader by their shapes.
class LayerWeights {
 public:
  LayerWeights(WeightLoader& loader, std::string prefix, const ModelConfig& config,
               const std::optional<Quantization>& quantization)
      : loader_(loader), prefix_(std::move(prefix)), config_(config), quantization_(quantization) {}

  // Undefined where there is none.
  Variable sinks(const std::optional<NormShape>& shape) {
    return shape ? loader_.vector(prefix_ + shape->name, shape->size) : Variable();
  }
  Variable norm(const std::optional<NormShape>& shape) {
    if (!shape) return {};
    const std::string name = prefix_ + shape->name + ".weight";
    return loader_.vector(name, shape->size, has_norm_offset(name) ? config_.norm_weight_offset : 0);
  }
  // Numbers that are exponents, which bf16 would leave three digits of.
  Variable exact(const NormShape& shape) { return loader_.exact_vector(prefix_ + shape.name, shape.size); }
  Linear linear(const LinearShape& shape) {
    const std::string name = prefix_ + shape.name;
    return {name, loader_.linear(name + ".weight", shape.out, shape.in, quantization_),
            shape.bias ? loader_.vector(name + ".bias", shape.out) : Variable()};
  }
  Variable conv(const ConvShape& shape) {
    return loader_.tensor(prefix_ + shape.name + ".weight", {shape.columns, 1, shape.taps});
  }
  // Undefined where there is none.
  Variable bias(const ConvShape& shape) {
    return shape.bias ? loader_.vector(prefix_ + shape.name + ".bias", shape.columns) : Variable();
  }
  std::vector<Linear> linears(const std::vector<LinearShape>& shapes) {
    std::vector<Linear> loaded;
    for (const LinearShape& shape : shapes) loaded.push_back(linear(shape));
    return loaded;
  }
  Experts experts(const LayerLayout& layout) {
    const LinearShape& router = *layout.router;
    const std::string name = prefix_ + router.name;
    Experts loaded{.per_token = config_.experts.num_experts_per_tok,
                   .normalised = config_.experts.norm_topk_prob,
                   .sigmoids = config_.experts.sigmoids,
                   .scale = static_cast<float>(config_.experts.routed_scale),
                   .activation = config_.activation,
                   .router = {name, loader_.matrix(name + ".weight", router.out, router.in),
                              router.bias ? loader_.vector(name + ".bias", router.out) : Variable()},
                   .experts = {}};
    if (layout.choice_bias)
      loaded.choice_bias = loader_.exact_constant(prefix_ + layout.choice_bias->name, layout.choice_bias->size);
    for (const ExpertShape& shape : layout.experts)
      loaded.experts.push_back({linear(shape.gate_proj), linear(shape.up_proj), linear(shape.down_proj)});
    return loaded;
  }

 private:
  WeightLoader& loader_;
  std::string prefix_;
  const ModelConfig& config_;
  const std::optional<Quantization>& quantization_;
};

}  // namespace

Transformer::Transformer(const ModelConfig& config, const WeightSource& source, const TransformerOptions& options)
    : config_(config), options_(options) {
  if (options.quantized_linears && options.weights == WeightMode::trainable)
    throw ConfigError("quantized_linears", "codes cannot be trained: freeze the weights and train an adapter");
  if (options.dtype == DType::f64 && options.device.kind != DeviceKind::cpu)
    throw ConfigError("dtype", "f64 runs on the cpu only, found --device " + to_string(options.device));
  const MemoryTagScope tag(MemoryTag::weights);
  max_positions_ = options.max_positions > 0 ? options.max_positions : config.max_position_embeddings;
  std::vector<autograd::RopeTables> ropes;
  for (const RopeConfig& rope : config.ropes) {
    const autograd::RopeTables made = make_rope_tables(rope, config.head_dim, options.dtype, max_positions_);
    ropes.push_back(
        {kernels::moved(made.cos, options.device), kernels::moved(made.sin, options.device), made.query_row});
  }
  WeightLoader loader(source, options.dtype, options.device,
                      options.weights == WeightMode::trainable ? &weights_ : nullptr,
                      options.quantized_linears ? StoredBlockUse::widen : options.stored_blocks);
  // Some files keep a tied weight under the output's name alone, or under both.
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  const bool under_head = config.tie_word_embeddings && !loader.has(embedding) && loader.has(head);
  embedding_ = loader.matrix(under_head ? head : embedding, config.vocab_size, config.hidden_size);
  layers_.reserve(config.layers.size());
  for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
    layers_.push_back(load_layer(i, loader, ropes));
    source.release_pages();
  }
  final_norm_ = loader.vector(config.names.final_norm + ".weight", config.hidden_size, config.norm_weight_offset);
  // A GGUF file's; the config has their values.
  for (const char* factors : {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
    if (std::any_of(config.ropes.begin(), config.ropes.end(), [](const RopeConfig& rope) {
          return !rope.frequency_factors.empty() || !rope.scaling.long_factor.empty();
        }))
      loader.ignore(factors);
  if (config.tie_word_embeddings) {
    loader.ignore(head);
  } else {
    lm_head_ = loader.matrix(head, config.vocab_size, config.hidden_size);
  }
  loader.check_all_used();
  loader.publish();
  source.release_pages();
}

std::vector<std::pair<std::string, Tensor>> Transformer::constants() const {
  std::vector<std::pair<std::string, Tensor>> all;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    if (const auto& experts = layers_[i].feed_forward.experts; experts && experts->choice_bias.defined())
      all.emplace_back(layer_prefix(index) + layer_layout(config_, index).choice_bias->name, experts->choice_bias);
  }
  return all;
}

Transformer::Layer Transformer::load_layer(int64_t index, WeightLoader& loader,
                                           const std::vector<autograd::RopeTables>& ropes) const {
  const LayerLayout layout = layer_layout(config_, index);
  LayerWeights weights(loader, layer_prefix(index), config_, options_.quantized_linears);
  loader.ignore(layer_prefix(index) + "self_attn.rotary_emb.inv_freq");  // old checkpoints carry it; the config has it
  // Norms first: the order of trainable weights is that of their loading, and the gradient's norm sums in that order.
  const Variable input_norm = weights.norm(layout.input_norm);
  const Variable feed_forward_norm = weights.norm(layout.feed_forward_norm);
  const Variable attention_output_norm = weights.norm(layout.attention_output_norm);
  const Variable feed_forward_output_norm = weights.norm(layout.feed_forward_output_norm);
  const Variable q_norm = weights.norm(layout.q_norm), k_norm = weights.norm(layout.k_norm);
  const Variable sinks = weights.sinks(layout.sinks);
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const int64_t rope = config_.layers[static_cast<size_t>(index)].rope;
  const Residual residual{attention_output_norm, eps, config_.residual_multiplier};
  const auto attention = [&]() -> AttentionBlock {
    return {.layer = index,
            .head_dim = config_.head_dim,
            .eps = eps,
            .rope = rope == no_rope ? autograd::RopeTables{} : ropes[static_cast<size_t>(rope)],
            .q_columns = config_.num_attention_heads * config_.head_dim,
            .gated = config_.attention_gate,
            .input_norm = input_norm,
            .q_norm = q_norm,
            .k_norm = k_norm,
            .sinks = sinks,
            .qkv_proj = weights.linears(layout.qkv_proj),
            .o_proj = weights.linear(*layout.o_proj),
            .residual = residual};
  };
  const auto short_conv = [&]() -> ShortConvBlock {
    return {.layer = index,
            .eps = eps,
            .input_norm = input_norm,
            .in_proj = weights.linear(*layout.conv_in_proj),
            .weight = weights.conv(*layout.conv),
            .bias = weights.bias(*layout.conv),
            .out_proj = weights.linear(*layout.conv_out_proj),
            .residual = residual};
  };
  const auto gated_delta = [&]() -> GatedDeltaBlock {
    return {.layer = index,
            .eps = eps,
            .input_norm = input_norm,
            .in_proj = weights.linears(layout.delta_in_proj),
            .weights = {.conv = weights.conv(*layout.conv),
                        .a_log = weights.exact(*layout.delta_a_log),
                        .dt_bias = weights.exact(*layout.dt_bias),
                        .heads = config_.gated_delta.heads},
            .head_norm = weights.norm(layout.delta_norm),
            .out_proj = weights.linear(*layout.delta_out_proj),
            .residual = residual};
  };
  const auto mamba2 = [&]() -> Mamba2Block {
    const Mamba2Config& mamba = config_.mamba2;
    return {.layer = index,
            .eps = eps,
            .input_norm = input_norm,
            .in_proj = weights.linear(*layout.conv_in_proj),
            .weights = {.conv = weights.conv(*layout.conv),
                        .conv_bias = weights.bias(*layout.conv),
                        .of_recurrence = {.A_log = weights.exact(*layout.mamba_a_log),
                                          .D = weights.exact(*layout.mamba_d),
                                          .dt_bias = weights.exact(*layout.dt_bias)},
                        .shape = {mamba.heads, static_cast<float>(mamba.dt_min), static_cast<float>(mamba.dt_max)}},
            .norm = weights.norm(layout.mamba_norm),
            .out_proj = weights.linear(*layout.conv_out_proj),
            .residual = residual};
  };
  const auto mixer = [&]() -> Layer::Mixing {
    switch (config_.layers[static_cast<size_t>(index)].mixer) {
      case Mixer::short_conv: return short_conv();
      case Mixer::gated_delta: return gated_delta();
      case Mixer::mamba2: return mamba2();
      default: return attention();
    }
  };
  Layer layer{.mixer = mixer(),
              .feed_forward = {.eps = eps,
                               .residual_multiplier = config_.residual_multiplier,
                               .activation = config_.activation,
                               .norm = feed_forward_norm,
                               .output_norm = feed_forward_output_norm,
                               .gate_up_proj = weights.linears(layout.gate_up_proj)}};
  if (layout.down_proj) layer.feed_forward.down_proj = weights.linear(*layout.down_proj);
  if (layout.shared_gate) layer.feed_forward.shared_gate = weights.linear(*layout.shared_gate);
  if (!layout.router) return layer;
  const size_t first = weights_.size();
  layer.feed_forward.experts = weights.experts(layout);
  layer.feed_forward.experts->make_tables(options_.dtype);
  // An expert that no token of a batch goes through has a gradient of zeros, not none.
  for (size_t i = first; i < weights_.size(); ++i)
    weights_[i].leaf.set_grad(
        Tensor::zeros(weights_[i].master.shape(), weights_[i].master.dtype(), options_.device, MemoryTag::gradients));
  return layer;
}

Variable Transformer::forward(const TokenBatch& batch, AttentionContext& attention,
                              const ForwardOptions& options) const {
  const BatchRows rows = rows_of(batch, options.adapter);
  Variable x = embed(batch, rows);
  if (config_.embedding_scale != 1) x = autograd::scale(x, rounded_to(config_.embedding_scale, options_.dtype));
  for (const Layer& layer : layers_) {
    if (options.checkpoint_layers) {
      // The backward may run after this call has returned: the rows are captured by value.
      const auto body = [&layer, rows, &attention](std::span<const Variable> inputs) {
        return std::vector<Variable>{layer(inputs[0], rows, attention)};
      };
      x = autograd::checkpoint(body, {x})[0];
    } else {
      x = layer(x, rows, attention);
    }
  }
  const Variable normed = autograd::rms_norm(x, final_norm_, static_cast<float>(config_.rms_norm_eps), batch.layout);
  return config_.logits_scaling == 1 ? normed : autograd::scale(normed, 1.0 / config_.logits_scaling);
}

bool Transformer::asks_the_host(const std::vector<std::string>& adapters) const {
  if (std::ranges::none_of(config_.layers, [](const LayerConfig& layer) { return layer.experts; })) return false;
  const auto changes_experts = [&](const auto& named) {
    const bool used = adapters.empty() || std::ranges::find(adapters, named.first) != adapters.end();
    return used && !named.second.config.target_parameters.empty();
  };
  return std::ranges::any_of(adapters_, changes_experts) || std::ranges::any_of(layers_, [&](const Layer& layer) {
           return layer.feed_forward.experts && !layer.feed_forward.experts->stays_on_device();
         });
}

bool Transformer::asks_the_host_in_training() const {
  return asks_the_host({}) || std::ranges::any_of(layers_, [](const Layer& layer) {
           return layer.feed_forward.experts && layer.feed_forward.experts->trains();
         });
}

Tensor Transformer::logits(const Tensor& hidden, float temperature) const {
  const DType dtype = options_.dtype == DType::f64 ? DType::f64 : DType::f32;
  Tensor out = Tensor::empty({hidden.dim(0), config_.vocab_size}, dtype, hidden.device());
  kernels::linear_forward(out, hidden, output_weight().value());
  if (softcap() > 0) kernels::softcap(out, out, softcap());
  if (temperature != 1.0f)
    kernels::scale(out, out, dtype == DType::f64 ? 1.0 / static_cast<double>(temperature) : double{1.0f / temperature});
  return out;
}

}  // namespace lathe::nn
