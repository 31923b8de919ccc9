#include "serve/engine/decode_graphs.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/graph.h"
#include "kernels/paged_attention/paged_attention.h"
#include "serve/engine/step_batch.h"

namespace lathe::engine {
namespace {

constexpr int64_t upload_buffer_bytes = 256 << 10;
constexpr int64_t most_logits_bytes = int64_t{256} << 20;

}  // namespace

struct DecodeGraphs::Step {
  Tensor numbers;  // i32 on the device: ids [S], positions [S], the PagedBatch's
  kernels::DeviceGraph graph;
  Tensor logits;
};

DecodeGraphs::DecodeGraphs(const nn::Transformer& model, const nn::KvCache& cache, int64_t most)
    : model_(model),
      cache_(cache),
      most_(static_cast<size_t>(most)),
      upload_(model.device(), upload_buffer_bytes),
      memory_(std::make_shared<MemoryPool>(model.device())) {}

DecodeGraphs::~DecodeGraphs() = default;

Tensor DecodeGraphs::logits(std::span<const ScheduledSequence> scheduled) {
  int64_t longest = 0;
  for (const ScheduledSequence& entry : scheduled) longest = std::max(longest, entry.sequence->cached + entry.tokens);
  const auto sequences = static_cast<int64_t>(scheduled.size());
  const StepShape shape{sequences, kernels::paged_launched_keys(longest)};
  const StepBatch batch(scheduled, shape.keys / cache_.page_size());

  const auto found = steps_.find(shape);
  std::unique_ptr<Step> made;
  if (found == steps_.end()) {
    if (steps_.size() == most_ || logits_bytes_ > most_logits_bytes) {  // the step before has been waited for
      steps_.clear();
      logits_bytes_ = 0;
      memory_ = std::make_shared<MemoryPool>(model_.device());
    }
    const int64_t count = 2 * sequences + kernels::PagedBatch::number_count(sequences, sequences, batch.pages_across);
    made.reset(new Step{.numbers = Tensor::empty({count}, DType::i32, model_.device(), MemoryTag::workspace),
                        .graph = kernels::DeviceGraph(model_.device(), memory_),
                        .logits = {}});
  }
  Step& step = made ? *made : *found->second;

  const Tensor ids = step.numbers.slice(0, 0, sequences), positions = step.numbers.slice(0, sequences, 2 * sequences);
  const kernels::PagedBatch paged = batch.paged(cache_, step.numbers.slice(0, 2 * sequences, step.numbers.numel()));
  std::vector<int32_t> numbers = batch.ids;
  numbers.insert(numbers.end(), batch.positions.begin(), batch.positions.end());
  numbers.insert(numbers.end(), paged.numbers().begin(), paged.numbers().end());
  upload_.write(
      step.numbers.raw(), step.numbers.nbytes(), sizeof(int32_t), [&](char* buffer, int64_t first, int64_t bytes) {
        std::memcpy(buffer, reinterpret_cast<const char*>(numbers.data()) + first, static_cast<size_t>(bytes));
      });
  upload_.publish();

  if (made) {
    const Tensor bounds = Tensor::of<int32_t>(batch.bounds, {sequences + 1});
    nn::PagedAttention attention(model_.config(), cache_, paged);
    step.graph.run([&] {
      step.logits = model_.logits(model_.forward({ids, {bounds, positions, {}}}, attention).value());
    });
    ++counts_.captured;
    logits_bytes_ += step.logits.nbytes();
    steps_.emplace(shape, std::move(made));
  } else {
    step.graph.replay();
    ++counts_.replayed;
  }
  return step.logits;
}

}  // namespace lathe::engine
