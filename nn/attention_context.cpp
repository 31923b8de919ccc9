#include "nn/attention_context.h"

#include <cmath>

#include "autograd/ops/attention.h"
#include "autograd/ops/attention_sinks.h"
#include "autograd/ops/causal_conv.h"
#include "autograd/ops/gated_delta.h"
#include "autograd/ops/short_conv.h"
#include "kernels/causal_conv/causal_conv.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/rope_append/rope_append.h"
#include "kernels/short_conv/short_conv.h"

namespace lathe::nn {
namespace {

std::vector<kernels::AttentionParams> params_of(const ModelConfig& config) {
  std::vector<kernels::AttentionParams> layers;
  const double divisor =
      config.query_pre_attn_scalar > 0 ? config.query_pre_attn_scalar : static_cast<double>(config.head_dim);
  const double scale = config.attention_multiplier > 0 ? config.attention_multiplier : 1.0 / std::sqrt(divisor);
  for (const LayerConfig& layer : config.layers) {
    kernels::AttentionParams params;
    params.scale = static_cast<float>(scale);
    params.window = layer.sliding_window;
    params.softcap = static_cast<float>(config.attn_logit_softcapping);
    layers.push_back(params);
  }
  return layers;
}

// `sequences`: a SequenceLayout or SharedPrefixes.
template <class Sequences>
autograd::Variable delta_of(const autograd::Variable& qkv, const autograd::Variable& a, const autograd::Variable& b,
                            const DeltaWeights& weights, const Sequences& sequences) {
  const autograd::Variable convolved = autograd::causal_conv(qkv, weights.conv, {}, sequences);
  return autograd::gated_delta(convolved, a, b, weights.a_log, weights.dt_bias, weights.heads, sequences);
}

template <class Sequences>
autograd::Variable mamba2_of(const autograd::Variable& xbc, const autograd::Variable& dt,
                             const Mamba2MixerWeights& weights, const Sequences& sequences) {
  const autograd::Variable convolved = autograd::causal_conv(xbc, weights.conv, weights.conv_bias, sequences);
  return autograd::mamba2(convolved, dt, weights.of_recurrence, weights.shape, sequences);
}

}  // namespace

PackedAttention::PackedAttention(const ModelConfig& config, autograd::SequenceLayout layout)
    : layout_(std::move(layout)), params_(params_of(config)) {}

autograd::Variable PackedAttention::attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                                           const autograd::Variable& v, const autograd::Variable& sinks) {
  return autograd::attention(q, k, v, layout_, params_.at(static_cast<size_t>(layer)), sinks);
}

autograd::Variable PackedAttention::convolve(int64_t, const autograd::Variable& bcx, const autograd::Variable& weight,
                                             const autograd::Variable& bias) {
  return autograd::short_conv(bcx, weight, bias, layout_);
}

autograd::Variable PackedAttention::mix_by_delta(int64_t, const autograd::Variable& qkv, const autograd::Variable& a,
                                                 const autograd::Variable& b, const DeltaWeights& weights) {
  return delta_of(qkv, a, b, weights, layout_);
}

autograd::Variable PackedAttention::mix_by_mamba2(int64_t, const autograd::Variable& xbc, const autograd::Variable& dt,
                                                  const Mamba2MixerWeights& weights) {
  return mamba2_of(xbc, dt, weights, layout_);
}

SharedPrefixAttention::SharedPrefixAttention(const ModelConfig& config, autograd::SharedPrefixes shared)
    : shared_(std::move(shared)), params_(params_of(config)) {}

autograd::Variable SharedPrefixAttention::attend(int64_t layer, const autograd::Variable& q,
                                                 const autograd::Variable& k, const autograd::Variable& v,
                                                 const autograd::Variable& sinks) {
  return autograd::shared_prefix_attention(q, k, v, shared_, params_.at(static_cast<size_t>(layer)), sinks);
}

autograd::Variable SharedPrefixAttention::convolve(int64_t, const autograd::Variable& bcx,
                                                   const autograd::Variable& weight, const autograd::Variable& bias) {
  return autograd::short_conv(bcx, weight, bias, shared_);
}

autograd::Variable SharedPrefixAttention::mix_by_delta(int64_t, const autograd::Variable& qkv,
                                                       const autograd::Variable& a, const autograd::Variable& b,
                                                       const DeltaWeights& weights) {
  return delta_of(qkv, a, b, weights, shared_);
}

autograd::Variable SharedPrefixAttention::mix_by_mamba2(int64_t, const autograd::Variable& xbc,
                                                        const autograd::Variable& dt,
                                                        const Mamba2MixerWeights& weights) {
  return mamba2_of(xbc, dt, weights, shared_);
}

PagedAttention::PagedAttention(const ModelConfig& config, KvCache& cache, kernels::PagedBatch batch)
    : cache_(cache), batch_(std::move(batch)), params_(params_of(config)) {}

autograd::Variable PagedAttention::attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                                          const autograd::Variable& v, const autograd::Variable& sinks) {
  kernels::kv_append(cache_.layer(layer), k.value(), v.value(), batch_);
  return attend_pages(layer, q.value(), sinks.value());
}

std::optional<autograd::Variable> PagedAttention::attend_unturned(int64_t layer, const UnturnedHeads& heads) {
  kernels::rope_append(cache_.layer(layer),
                       {.q = heads.q.value(),
                        .k = heads.k.value(),
                        .v = heads.v.value(),
                        .q_norm = heads.q_norm.value(),
                        .k_norm = heads.k_norm.value(),
                        .eps = heads.eps,
                        .positions = heads.layout.positions,
                        .cos_table = heads.rope.cos,
                        .sin_table = heads.rope.sin,
                        .query_row = heads.rope.query_row},
                       batch_);
  return attend_pages(layer, heads.q.value(), heads.sinks.value());
}

autograd::Variable PagedAttention::convolve(int64_t layer, const autograd::Variable& bcx,
                                            const autograd::Variable& weight, const autograd::Variable& bias) {
  const Tensor& taps = weight.value();
  Tensor out = Tensor::empty({bcx.dim(0), taps.dim(0)}, bcx.value().dtype(), bcx.value().device());
  kernels::short_conv_paged(out, cache_.products(layer), bcx.value(), taps.view({taps.dim(0), taps.dim(2)}),
                            bias.value(), batch_);
  return autograd::Variable(out);
}

autograd::Variable PagedAttention::mix_by_delta(int64_t layer, const autograd::Variable& qkv,
                                                const autograd::Variable& a, const autograd::Variable& b,
                                                const DeltaWeights& weights) {
  const KvCache::States& states = cache_.states(layer);
  const Tensor& taps = weights.conv.value();
  const Tensor convolved = Tensor::empty(qkv.shape(), qkv.value().dtype(), qkv.value().device());
  kernels::causal_conv_step(convolved, states.conv, qkv.value(), taps.view({taps.dim(0), taps.dim(2)}), {}, batch_);
  const Tensor out = Tensor::empty({qkv.dim(0), weights.heads.out_columns()}, convolved.dtype(), convolved.device());
  kernels::gated_delta_step(
      out, states.matrices,
      {convolved, a.value(), b.value(), weights.a_log.value(), weights.dt_bias.value(), weights.heads}, batch_);
  return autograd::Variable(out);
}

autograd::Variable PagedAttention::mix_by_mamba2(int64_t layer, const autograd::Variable& xbc,
                                                 const autograd::Variable& dt, const Mamba2MixerWeights& weights) {
  const KvCache::States& states = cache_.states(layer);
  const Tensor& taps = weights.conv.value();
  const autograd::Mamba2Shape& shape = weights.shape;
  const Tensor convolved = Tensor::empty(xbc.shape(), xbc.value().dtype(), xbc.value().device());
  kernels::causal_conv_step(convolved, states.conv, xbc.value(), taps.view({taps.dim(0), taps.dim(2)}),
                            weights.conv_bias.value(), batch_);
  const Tensor out = Tensor::empty({xbc.dim(0), shape.heads.out_columns()}, convolved.dtype(), convolved.device());
  const autograd::Mamba2Weights& own = weights.of_recurrence;
  kernels::mamba2_step(out, states.matrices,
                       {convolved, dt.value(), own.A_log.value(), own.D.value(), own.dt_bias.value(), shape.heads,
                        shape.dt_min, shape.dt_max},
                       batch_);
  return autograd::Variable(out);
}

autograd::Variable PagedAttention::attend_pages(int64_t layer, const Tensor& q, const Tensor& sinks) const {
  Tensor out = Tensor::empty(q.shape(), q.dtype(), q.device());
  const Tensor lse = autograd::lse_of_attention(q, sinks, false);
  kernels::paged_attention(out, q, cache_.layer(layer), batch_, params_.at(static_cast<size_t>(layer)), lse);
  autograd::add_sinks(out, lse, sinks, false);
  return autograd::Variable(out);
}

}  // namespace lathe::nn
