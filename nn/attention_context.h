// How a layer's queries find their keys and values. Layers call attend() and do not care which.
#pragma once

#include <vector>

#include "autograd/ops/shared_prefix_attention.h"
#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "kernels/attention/attention.h"
#include "nn/kv_cache.h"

namespace lathe::nn {

class AttentionContext {
 public:
  virtual ~AttentionContext() = default;
  // q [T, heads, D]; k, v [T, kv_heads, D] of the new tokens, rotated → [T, heads, D].
  // Layer i attends as the config's layers[i] says.
  virtual autograd::Variable attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                                    const autograd::Variable& v) = 0;
};

// Training and scoring: whole sequences, each attending to itself.
class PackedAttention final : public AttentionContext {
 public:
  PackedAttention(const ModelConfig& config, autograd::SequenceLayout layout);
  autograd::Variable attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                            const autograd::Variable& v) override;

 private:
  autograd::SequenceLayout layout_;
  std::vector<kernels::AttentionParams> params_;  // of each layer
};

// The same of sequences that may begin like the one before them, where these tokens have one row.
class SharedPrefixAttention final : public AttentionContext {
 public:
  SharedPrefixAttention(const ModelConfig& config, autograd::SharedPrefixes shared);
  autograd::Variable attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                            const autograd::Variable& v) override;

 private:
  autograd::SharedPrefixes shared_;
  std::vector<kernels::AttentionParams> params_;  // of each layer
};

// Generation: appends the new keys and values to their pages, then attends over all of the sequence's. No gradients.
class PagedAttention final : public AttentionContext {
 public:
  // The batch is made for cache.shape().
  PagedAttention(const ModelConfig& config, KvCache& cache, kernels::PagedBatch batch);
  autograd::Variable attend(int64_t layer, const autograd::Variable& q, const autograd::Variable& k,
                            const autograd::Variable& v) override;

 private:
  KvCache& cache_;
  kernels::PagedBatch batch_;
  std::vector<kernels::AttentionParams> params_;  // of each layer
};

}  // namespace lathe::nn
