// The tokens of one step: what the model and its pages take.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/paged_attention/paged_batch.h"
#include "nn/kv_cache.h"
#include "serve/engine/scheduler.h"

namespace lathe::engine {

struct StepBatch {
  std::vector<int32_t> ids, positions;  // [T]
  std::vector<int32_t> bounds{0};       // [S + 1]
  std::vector<int32_t> context_lens;    // [S]
  std::vector<int32_t> block_table;     // [S, pages_across]
  std::vector<int32_t> states;          // [S]; no_state where the model keeps none
  int64_t pages_across = 0;

  // A block table of at least `pages_least` columns.
  explicit StepBatch(std::span<const ScheduledSequence> scheduled, int64_t pages_least = 0);

  int64_t sequences() const { return static_cast<int64_t>(context_lens.size()); }
  // On the cache's device: uploaded, or at `there` (PagedBatch).
  kernels::PagedBatch paged(const nn::KvCache& cache, const Tensor& there = {}) const;
};

// Of each sequence (nn::TokenBatch::adapters).
std::vector<std::string> adapters_of(std::span<const ScheduledSequence> scheduled);

}  // namespace lathe::engine
