#include "nn/attention_context.h"

#include <cmath>

#include "autograd/ops/attention.h"
#include "kernels/paged_attention/paged_attention.h"

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

}  // namespace

PackedAttention::PackedAttention(const ModelConfig& config, autograd::SequenceLayout layout)
    : layout_(std::move(layout)), params_(params_of(config)) {}

autograd::Variable PackedAttention::attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                                           const autograd::Variable& v) {
  return autograd::attention(q, k, v, layout_, params_.at(static_cast<size_t>(layer)));
}

SharedPrefixAttention::SharedPrefixAttention(const ModelConfig& config, autograd::SharedPrefixes shared)
    : shared_(std::move(shared)), params_(params_of(config)) {}

autograd::Variable SharedPrefixAttention::attend(int64_t layer, const autograd::Variable& q,
                                                 const autograd::Variable& k, const autograd::Variable& v) {
  return autograd::shared_prefix_attention(q, k, v, shared_, params_.at(static_cast<size_t>(layer)));
}

PagedAttention::PagedAttention(const ModelConfig& config, KvCache& cache, kernels::PagedBatch batch)
    : cache_(cache), batch_(std::move(batch)), params_(params_of(config)) {}

autograd::Variable PagedAttention::attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                                          const autograd::Variable& v) {
  const kernels::KvPages& pages = cache_.layer(layer);
  kernels::kv_append(pages, k.value(), v.value(), batch_);
  Tensor out = Tensor::empty(q.shape(), q.dtype(), q.value().device());
  kernels::paged_attention(out, q.value(), pages, batch_, params_.at(static_cast<size_t>(layer)));
  return autograd::Variable(out);
}

}  // namespace lathe::nn
