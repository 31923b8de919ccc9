// Decoding steps on a device as graphs: captured once for so many sequences of so many pages, then replayed. Token ids, positions,
// lengths and pages lie in one small block of device memory that is uploaded before each step.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "core/memory_pool.h"
#include "kernels/cuda/upload.h"
#include "nn/kv_cache.h"
#include "nn/transformer.h"
#include "serve/engine/scheduler.h"

namespace lathe::engine {

struct GraphCounts {
  int64_t captured = 0, replayed = 0;  // steps; a captured one has run once
};

class DecodeGraphs {
 public:
  // Model and cache are borrowed; neither the model's weights nor its adapter may move. Graphs of `most` shapes of steps are kept:
  // beyond that, or 256 MiB of logits, all of them are forgotten with their memory and those in use captured again, a few
  // milliseconds each. (Giving up the oldest alone would leave the pool with blocks of its sizes.)
  DecodeGraphs(const nn::Transformer& model, const nn::KvCache& cache, int64_t most);
  ~DecodeGraphs();

  // Logits [S, vocab_size] of a step in which every sequence has one token, its last. The next call overwrites them. After an error
  // the step may be tried again.
  Tensor logits(std::span<const ScheduledSequence> scheduled);
  const GraphCounts& counts() const { return counts_; }

 private:
  // What kernels are launched for (kernels/paged_attention): steps of one shape differ in numbers alone.
  struct StepShape {
    int64_t sequences, keys;
    auto operator<=>(const StepShape&) const = default;
  };
  struct Step;

  const nn::Transformer& model_;
  const nn::KvCache& cache_;
  size_t most_;
  kernels::Upload upload_;
  std::shared_ptr<MemoryPool> memory_;  // of all graphs: they run one after another
  std::map<StepShape, std::unique_ptr<Step>> steps_;
  int64_t logits_bytes_ = 0;  // of steps_
  GraphCounts counts_;
};

}  // namespace lathe::engine
