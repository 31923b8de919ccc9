// How a layer's tokens find those before them: queries their keys and values, a convolution what it sees, a gated delta
// net or Mamba-2 the state that they have left. Layers call attend(), convolve(), mix_by_delta() or mix_by_mamba2() and
// do not care which.
#pragma once

#include <optional>
#include <vector>

#include "autograd/ops/mamba2.h"
#include "autograd/ops/rope.h"
#include "autograd/ops/shared_prefix_attention.h"
#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "kernels/attention/attention.h"
#include "kernels/gated_delta/gated_delta.h"
#include "nn/kv_cache.h"

namespace lathe::nn {

// A layer's q, k and v as their products left them, and what is to become of them before they meet.
struct UnturnedHeads {
  autograd::Variable q, k, v;         // [T, heads, D], [T, kv_heads, D] twice; q and k are used up
  autograd::Variable q_norm, k_norm;  // [D], of each head; undefined where the model has none
  float eps = 0;
  const autograd::RopeTables& rope;  // undefined tables: nothing turns
  const autograd::SequenceLayout& layout;
  const autograd::Variable& sinks;  // as attend() has them
};

// What a gated delta net has beside its linears.
struct DeltaWeights {
  autograd::Variable conv;            // [qkv_columns, 1, taps]
  autograd::Variable a_log, dt_bias;  // [value heads], f32 (f64 for f64)
  kernels::GatedDeltaHeads heads;
};

// What Mamba-2 has beside its linears and its norm.
struct Mamba2MixerWeights {
  autograd::Variable conv, conv_bias;     // [xbc_columns, 1, taps]; [xbc_columns] or undefined
  autograd::Mamba2Weights of_recurrence;  // [heads], f32 (f64 for f64)
  autograd::Mamba2Shape shape;
};

class AttentionContext {
 public:
  virtual ~AttentionContext() = default;
  // q [T, heads, D]; k, v [T, kv_heads, D] of the new tokens, rotated → [T, heads, D]. sinks [heads] join its
  // softmax, where they are defined. Layer i attends as the config's layers[i] says.
  virtual autograd::Variable attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                                    const autograd::Variable& v, const autograd::Variable& sinks) = 0;
  // The same of heads that it norms and turns while it puts them away, in one pass; nothing where it does not.
  virtual std::optional<autograd::Variable> attend_unturned(int64_t, const UnturnedHeads&) { return {}; }
  // bcx [T, 3 · hidden] of the new tokens → [T, hidden], by the weight [hidden, 1, taps] of layer i and its bias
  // [hidden], where it is defined (kernels/short_conv/short_conv.h).
  virtual autograd::Variable convolve(int64_t layer, const autograd::Variable& bcx, const autograd::Variable& weight,
                                      const autograd::Variable& bias) = 0;
  // qkv [T, qkv_columns], a and b [T, value heads] of the new tokens → [T, value_columns]: the convolution with silu
  // (kernels/causal_conv/causal_conv.h), then the gated delta rule (kernels/gated_delta/gated_delta.h).
  virtual autograd::Variable mix_by_delta(int64_t layer, const autograd::Variable& qkv, const autograd::Variable& a,
                                          const autograd::Variable& b, const DeltaWeights& weights) = 0;
  // xbc [T, xbc_columns], dt [T, heads] of the new tokens → [T, out_columns]: the convolution with silu, then the
  // recurrence (kernels/mamba2/mamba2.h).
  virtual autograd::Variable mix_by_mamba2(int64_t layer, const autograd::Variable& xbc, const autograd::Variable& dt,
                                           const Mamba2MixerWeights& weights) = 0;
};

// Training and scoring: whole sequences, each attending to itself.
class PackedAttention final : public AttentionContext {
 public:
  PackedAttention(const ModelConfig& config, autograd::SequenceLayout layout);
  autograd::Variable attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                            const autograd::Variable& v, const autograd::Variable& sinks) override;
  autograd::Variable convolve(int64_t layer, const autograd::Variable& bcx, const autograd::Variable& weight,
                              const autograd::Variable& bias) override;
  autograd::Variable mix_by_delta(int64_t layer, const autograd::Variable& qkv, const autograd::Variable& a,
                                  const autograd::Variable& b, const DeltaWeights& weights) override;
  autograd::Variable mix_by_mamba2(int64_t layer, const autograd::Variable& xbc, const autograd::Variable& dt,
                                   const Mamba2MixerWeights& weights) override;

 private:
  autograd::SequenceLayout layout_;
  std::vector<kernels::AttentionParams> params_;  // of each layer
};

// The same of sequences that may begin like the one before them, where these tokens have one row.
class SharedPrefixAttention final : public AttentionContext {
 public:
  SharedPrefixAttention(const ModelConfig& config, autograd::SharedPrefixes shared);
  autograd::Variable attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                            const autograd::Variable& v, const autograd::Variable& sinks) override;
  autograd::Variable convolve(int64_t layer, const autograd::Variable& bcx, const autograd::Variable& weight,
                              const autograd::Variable& bias) override;
  autograd::Variable mix_by_delta(int64_t layer, const autograd::Variable& qkv, const autograd::Variable& a,
                                  const autograd::Variable& b, const DeltaWeights& weights) override;
  autograd::Variable mix_by_mamba2(int64_t layer, const autograd::Variable& xbc, const autograd::Variable& dt,
                                   const Mamba2MixerWeights& weights) override;

 private:
  autograd::SharedPrefixes shared_;
  std::vector<kernels::AttentionParams> params_;  // of each layer
};

// Generation: appends the new keys and values (or what is convolved) to their pages, then attends over all of the
// sequence's. No gradients.
class PagedAttention final : public AttentionContext {
 public:
  // The batch is made for cache.shape().
  PagedAttention(const ModelConfig& config, KvCache& cache, kernels::PagedBatch batch);
  autograd::Variable attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                            const autograd::Variable& v, const autograd::Variable& sinks) override;
  // On a device.
  std::optional<autograd::Variable> attend_unturned(int64_t layer, const UnturnedHeads& heads) override;
  autograd::Variable convolve(int64_t layer, const autograd::Variable& bcx, const autograd::Variable& weight,
                              const autograd::Variable& bias) override;
  autograd::Variable mix_by_delta(int64_t layer, const autograd::Variable& qkv, const autograd::Variable& a,
                                  const autograd::Variable& b, const DeltaWeights& weights) override;
  autograd::Variable mix_by_mamba2(int64_t layer, const autograd::Variable& xbc, const autograd::Variable& dt,
                                   const Mamba2MixerWeights& weights) override;

 private:
  autograd::Variable attend_pages(int64_t layer, const Tensor& q, const Tensor& sinks) const;

  KvCache& cache_;
  kernels::PagedBatch batch_;
  std::vector<kernels::AttentionParams> params_;  // of each layer
};

}  // namespace lathe::nn
