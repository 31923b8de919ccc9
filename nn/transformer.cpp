#include "nn/transformer.h"

#include "autograd/ops/checkpoint.h"
#include "autograd/ops/embedding.h"
#include "autograd/ops/gated.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/view.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"
#include "nn/rope_table.h"
#include "nn/weight_loader.h"

namespace lathe::nn {

using autograd::Variable;

Transformer::Transformer(const ModelConfig& config, const WeightSource& source, const TransformerOptions& options)
    : config_(config), options_(options) {
  if (options.quantized_linears && options.weights == WeightMode::trainable)
    throw ConfigError("quantized_linears", "codes cannot be trained: freeze the weights and train an adapter");
  if (options.dtype == DType::f64 && options.device.kind != DeviceKind::cpu)
    throw ConfigError("dtype", "f64 runs on the cpu only, found --device " + to_string(options.device));
  const MemoryTagScope tag(MemoryTag::weights);
  const int64_t positions = options.max_positions > 0 ? options.max_positions : config.max_position_embeddings;
  rope_ = make_rope_tables(config, options.dtype, positions);
  rope_ = {kernels::moved(rope_.cos, options.device), kernels::moved(rope_.sin, options.device)};
  WeightLoader loader(source, options.dtype, options.device, options.weights == WeightMode::trainable ? &weights_ : nullptr);
  const int64_t hidden = config.hidden_size, ffn = config.intermediate_size;
  const int64_t q_size = config.num_attention_heads * config.head_dim, kv_size = config.num_key_value_heads * config.head_dim;

  embedding_ = loader.matrix("model.embed_tokens.weight", config.vocab_size, hidden);
  layers_.reserve(static_cast<size_t>(config.num_hidden_layers));
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
      const std::string weight = prefix + name + ".weight";
      return Linear{prefix + name,
                    options.quantized_linears ? loader.quantized_matrix(weight, out, in, *options.quantized_linears)
                                              : loader.matrix(weight, out, in),
                    std::nullopt};
    };
    loader.ignore(prefix + "self_attn.rotary_emb.inv_freq");  // old checkpoints carry it; it follows from the config
    layers_.push_back(Layer{
        .input_norm = loader.vector(prefix + "input_layernorm.weight", hidden),
        .post_attention_norm = loader.vector(prefix + "post_attention_layernorm.weight", hidden),
        .q_proj = linear("self_attn.q_proj", q_size, hidden),
        .k_proj = linear("self_attn.k_proj", kv_size, hidden),
        .v_proj = linear("self_attn.v_proj", kv_size, hidden),
        .o_proj = linear("self_attn.o_proj", hidden, q_size),
        .gate_proj = linear("mlp.gate_proj", ffn, hidden),
        .up_proj = linear("mlp.up_proj", ffn, hidden),
        .down_proj = linear("mlp.down_proj", hidden, ffn),
    });
  }
  final_norm_ = loader.vector("model.norm.weight", hidden);
  if (config.tie_word_embeddings) {
    loader.ignore("lm_head.weight");  // some files store the tied weight twice
  } else {
    lm_head_ = loader.matrix("lm_head.weight", config.vocab_size, hidden);
  }
  loader.check_all_used();
  loader.publish();
}

Variable Transformer::forward(const TokenBatch& batch, AttentionContext& attention, const ForwardOptions& options) const {
  Variable x = autograd::embedding(*embedding_, batch.ids, batch.layout);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    if (options.checkpoint_layers) {
      // The backward may run after this call has returned: the batch's tensors and the mode are captured by value.
      x = autograd::checkpoint(
          [this, i, index, batch, &attention, mode = options.adapter](std::span<const Variable> inputs) {
            return std::vector<Variable>{run_layer(layers_[i], index, inputs[0], batch, attention, mode)};
          },
          {x})[0];
    } else {
      x = run_layer(layers_[i], index, x, batch, attention, options.adapter);
    }
  }
  return autograd::rms_norm(x, final_norm_, static_cast<float>(config_.rms_norm_eps), batch.layout);
}

Variable Transformer::run_layer(const Layer& layer, int64_t index, const Variable& x, const TokenBatch& batch,
                                AttentionContext& attention, const AdapterMode& mode) const {
  const auto& layout = batch.layout;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const int64_t tokens = x.dim(0), head_dim = config_.head_dim;

  const Variable normed = autograd::rms_norm(x, layer.input_norm, eps, layout);
  const Shape q_heads{tokens, config_.num_attention_heads, head_dim}, kv_heads{tokens, config_.num_key_value_heads, head_dim};
  const Variable q = autograd::rope(autograd::view(layer.q_proj(normed, layout, mode), q_heads), rope_, layout);
  const Variable k = autograd::rope(autograd::view(layer.k_proj(normed, layout, mode), kv_heads), rope_, layout);
  const Variable v = autograd::view(layer.v_proj(normed, layout, mode), kv_heads);
  const Variable attended = autograd::view(attention.attend(index, q, k, v), {tokens, config_.num_attention_heads * head_dim});
  const Variable middle = layer.o_proj(attended, layout, mode, x);

  const Variable normed_middle = autograd::rms_norm(middle, layer.post_attention_norm, eps, layout);
  const Variable activated = autograd::swiglu(layer.gate_proj(normed_middle, layout, mode),
                                              layer.up_proj(normed_middle, layout, mode));
  return layer.down_proj(activated, layout, mode, middle);
}

Tensor Transformer::logits(const Tensor& hidden) const {
  const DType dtype = options_.dtype == DType::f64 ? DType::f64 : DType::f32;
  Tensor out = Tensor::empty({hidden.dim(0), config_.vocab_size}, dtype, hidden.device());
  kernels::linear_forward(out, hidden, output_weight().view());
  return out;
}

}  // namespace lathe::nn
