#include "serve/engine/decode_graphs.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/graph.h"
#include "kernels/cuda/profiler_range.h"
#include "kernels/paged_attention/paged_attention.h"

namespace lathe::engine {
namespace {

constexpr int64_t upload_buffer_bytes = 256 << 10;
constexpr int64_t most_logits_bytes = int64_t{256} << 20;

// Where the parts of a step's numbers end.
struct Parts {
  int64_t settings, ids, positions, pages;

  Parts(const StepBatch& batch, bool draws)
      : settings(draws ? batch.sequences() * kernels::sampling_setting_words : 0),
        ids(settings + batch.sequences()),
        positions(ids + batch.sequences()),
        pages(positions + kernels::PagedBatch::number_count(batch.sequences(), batch.sequences(), batch.pages_across)) {
  }
};

Tensor settings_of(std::span<const RowToDraw> rows) {
  std::vector<kernels::SamplingRow> sampling;
  for (const RowToDraw& row : rows) sampling.push_back(row.sampling);
  return kernels::sampling_settings(sampling);
}

}  // namespace

struct DecodeGraphs::Step {
  Tensor numbers;  // i32, on the device
  kernels::DeviceGraph graph;
  Drawn drawn;
  Tensor logits;  // where the graph draws nothing
};

DecodeGraphs::DecodeGraphs(const nn::Transformer& model, nn::KvCache& cache, int64_t most, float logits_temperature)
    : model_(model),
      cache_(cache),
      most_(static_cast<size_t>(most)),
      logits_temperature_(logits_temperature),
      upload_(model.device(), upload_buffer_bytes),
      memory_(std::make_shared<MemoryPool>(model.device())) {}

DecodeGraphs::~DecodeGraphs() = default;

std::vector<DrawnToken> DecodeGraphs::run(std::span<const ScheduledSequence> scheduled,
                                          std::span<const RowToDraw> rows) {
  const kernels::ProfilerRange range("decode");
  int64_t longest = 0;
  for (const ScheduledSequence& entry : scheduled) longest = std::max(longest, entry.sequence->cached + entry.tokens);
  const bool draws = std::ranges::none_of(
      rows, [](const RowToDraw& row) { return row.on_host() || kernels::has_penalties(row.sampling.params); });
  const auto sequences = static_cast<int64_t>(scheduled.size());
  const StepShape shape{sequences, kernels::paged_launched_keys(longest), draws, adapters_of(scheduled)};
  const StepBatch batch(scheduled, shape.keys / cache_.page_size());
  const Parts ends(batch, shape.draws);

  const auto known = steps_.find(shape);
  std::unique_ptr<Step> made = known == steps_.end() ? make_step(ends.pages) : nullptr;
  Step& step = made ? *made : *known->second;
  const auto part = [&](int64_t begin, int64_t end) { return step.numbers.slice(0, begin, end); };
  const kernels::PagedBatch paged = batch.paged(cache_, part(ends.positions, ends.pages));
  const Tensor settings = shape.draws ? settings_of(rows) : Tensor::empty({0}, DType::i32);
  upload({settings.span<int32_t>(), batch.ids, batch.positions, paged.numbers()}, step.numbers);
  if (!made) {
    step.graph.replay();
    ++counts_.replayed;
    return shape.draws ? on_host(step.drawn) : draw(step.logits, rows);
  }

  const nn::TokenBatch tokens{part(ends.settings, ends.ids),
                              {Tensor::of<int32_t>(batch.bounds, {sequences + 1}), part(ends.ids, ends.positions), {}},
                              shape.adapters};
  nn::PagedAttention attention(model_.config(), cache_, paged);
  step.graph.run([&] {
    const Tensor logits = model_.logits(model_.forward(tokens, attention).value(), logits_temperature_);
    logits_bytes_ += logits.nbytes();
    if (!shape.draws) {
      step.logits = logits;
      return;
    }
    step.drawn = room_to_draw(logits);
    kernels::sample_with(step.drawn.tokens, step.drawn.logprobs, logits,
                         part(0, ends.settings).view({sequences, kernels::sampling_setting_words}));
  });
  ++counts_.captured;
  steps_.emplace(shape, std::move(made));
  return shape.draws ? on_host(step.drawn) : draw(step.logits, rows);
}

std::unique_ptr<DecodeGraphs::Step> DecodeGraphs::make_step(int64_t numbers) {
  if (steps_.size() == most_ || logits_bytes_ > most_logits_bytes) forget();
  const Device device = model_.device();
  return std::unique_ptr<Step>(new Step{.numbers = Tensor::empty({numbers}, DType::i32, device, MemoryTag::workspace),
                                        .graph = kernels::DeviceGraph(device, memory_),
                                        .drawn = {},
                                        .logits = {}});
}

void DecodeGraphs::forget() {  // the step before has been waited for
  steps_.clear();
  logits_bytes_ = 0;
  memory_ = std::make_shared<MemoryPool>(model_.device());
}

// One after another, in one copy.
void DecodeGraphs::upload(std::initializer_list<std::span<const int32_t>> parts, const Tensor& to) {
  std::vector<int32_t> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  upload_.write(to.raw(), to.nbytes(), sizeof(int32_t), [&](char* buffer, int64_t first, int64_t bytes) {
    std::memcpy(buffer, reinterpret_cast<const char*>(all.data()) + first, static_cast<size_t>(bytes));
  });
  upload_.publish();
}

}  // namespace lathe::engine
