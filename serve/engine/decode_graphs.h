// Decoding steps on a device as graphs: captured once for so many sequences of so many pages, then replayed. Token ids,
// positions, lengths, pages and sampling settings lie in one small block of device memory that is uploaded before each
// step.
#pragma once

#include <compare>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/memory_pool.h"
#include "kernels/cuda/upload.h"
#include "nn/kv_cache.h"
#include "nn/transformer.h"
#include "serve/engine/sampler.h"
#include "serve/engine/scheduler.h"
#include "serve/engine/step_batch.h"

namespace lathe::engine {

struct GraphCounts {
  int64_t captured = 0, replayed = 0;  // steps; a captured one has run once
};

class DecodeGraphs {
 public:
  // Model and cache are borrowed; neither the model's weights nor its adapters may move. Graphs of `most` shapes of
  // steps are kept: beyond that, or 256 MiB of logits, all of them are forgotten with their memory and those in use
  // captured again, a few milliseconds each. (Giving up the oldest alone would leave the pool with blocks of its
  // sizes.)
  DecodeGraphs(const nn::Transformer& model, nn::KvCache& cache, int64_t most, float logits_temperature = 1.0f);
  ~DecodeGraphs();

  // A step in which every sequence has one token, its last, and a row. After an error the step may be tried again.
  std::vector<DrawnToken> run(std::span<const ScheduledSequence> scheduled, std::span<const RowToDraw> rows);
  // All graphs: what they read may go.
  void forget();
  const GraphCounts& counts() const { return counts_; }

 private:
  // What kernels are launched for (kernels/paged_attention): steps of one shape differ in numbers alone.
  struct StepShape {
    int64_t sequences, keys;
    bool draws;  // else tokens are drawn from the graph's logits: what decides about a row changes
    std::vector<std::string> adapters;  // of each sequence
    auto operator<=>(const StepShape&) const = default;
  };
  struct Step;
  std::unique_ptr<Step> make_step(int64_t numbers);  // for so many
  void upload(std::initializer_list<std::span<const int32_t>> parts, const Tensor& to);

  const nn::Transformer& model_;
  nn::KvCache& cache_;
  size_t most_;
  float logits_temperature_;
  kernels::Upload upload_;
  std::shared_ptr<MemoryPool> memory_;  // of all graphs: they run one after another
  std::map<StepShape, std::unique_ptr<Step>> steps_;
  int64_t logits_bytes_ = 0;  // of steps_
  GraphCounts counts_;
};

}  // namespace lathe::engine
