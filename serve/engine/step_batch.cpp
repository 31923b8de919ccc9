#include "serve/engine/step_batch.h"

#include <algorithm>

namespace lathe::engine {

StepBatch::StepBatch(std::span<const ScheduledSequence> scheduled, int64_t pages_least) : pages_across(pages_least) {
  for (const ScheduledSequence& entry : scheduled)
    pages_across = std::max(pages_across, static_cast<int64_t>(entry.sequence->block_table.size()));
  block_table.resize(scheduled.size() * static_cast<size_t>(pages_across));
  auto row = block_table.begin();
  for (const ScheduledSequence& entry : scheduled) {
    const Sequence& sequence = *entry.sequence;
    std::copy(sequence.block_table.begin(), sequence.block_table.end(), row);
    row += pages_across;
    const auto first = sequence.tokens.begin() + sequence.cached;
    ids.insert(ids.end(), first, first + entry.tokens);
    ids.insert(ids.end(), sequence.guesses.begin(), sequence.guesses.end());
    for (int64_t i = 0; i < entry.rows(); ++i) positions.push_back(static_cast<int32_t>(sequence.cached + i));
    bounds.push_back(static_cast<int32_t>(ids.size()));
    context_lens.push_back(static_cast<int32_t>(sequence.cached + entry.rows()));
    states.push_back(sequence.state);
  }
}

kernels::PagedBatch StepBatch::paged(const nn::KvCache& cache, const Tensor& there) const {
  return {Tensor::of<int32_t>(bounds, {sequences() + 1}),
          Tensor::of<int32_t>(context_lens, {sequences()}),
          Tensor::of<int32_t>(block_table, {sequences(), pages_across}),
          cache.shape(),
          there,
          cache.state_count() > 0 ? Tensor::of<int32_t>(states, {sequences()}) : Tensor()};
}

std::vector<std::string> adapters_of(std::span<const ScheduledSequence> scheduled) {
  std::vector<std::string> names;
  for (const ScheduledSequence& entry : scheduled) names.push_back(entry.sequence->adapter());
  return names;
}

}  // namespace lathe::engine
