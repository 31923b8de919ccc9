#include "kernels/sampling/device.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/sampling/cuda.h"
#include "kernels/sampling/draw.h"
#include "kernels/sampling/filters.h"
#include "kernels/sampling/penalties.h"

namespace lathe::kernels::device {
namespace {

SampledRow settings_of(const SamplingRow& row) {
  const SamplingParams& params = row.params;
  return {.draw = draw_bits(row),
          .least_weight = std::max<uint64_t>(1, least_weight(params.min_p)),
          .inverse_temperature = params.temperature < greedy_below ? 0.0f : 1.0f / params.temperature,
          .top_p = params.top_p,
          .top_k = std::max(params.top_k, 0)};
}

Tensor states_for(int64_t rows, Device device) {
  static_assert(sizeof(SampleState) % 8 == 0);
  return Tensor::empty({rows, static_cast<int64_t>(sizeof(SampleState))}, DType::u8, device, MemoryTag::workspace);
}

struct RowPenalties {
  int64_t row;
  std::vector<Penalty> penalties;
};

std::vector<RowPenalties> all_penalties(const Tensor& logits, std::span<const SamplingRow> rows) {
  std::vector<RowPenalties> all;
  for (size_t b = 0; b < rows.size(); ++b) {
    std::vector<Penalty> penalties = penalties_of(rows[b], logits.dim(1));
    if (!penalties.empty()) all.push_back({static_cast<int64_t>(b), std::move(penalties)});
  }
  return all;
}

// `before`, where defined, is written when penalising and read when restoring: what the logits were.
enum class Change { penalise, restore };
void change_logits(const Tensor& logits, const Tensor& before, std::span<const SamplingRow> rows,
                   std::span<const RowPenalties> all, Change change) {
  float* next_before = before.defined() ? before.data<float>() : nullptr;
  PenalisedCuda args{.restore = change == Change::restore};
  for (const auto& [row, penalties] : all) {
    const SamplingParams& params = rows[static_cast<size_t>(row)].params;
    args.logits = logits.data<float>() + row * logits.stride(0);
    args.repetition = params.repetition_penalty;
    args.presence = params.presence_penalty;
    args.frequency = params.frequency_penalty;
    for (size_t first = 0; first < penalties.size(); first += penalties_per_launch) {
      const size_t count = std::min<size_t>(penalties_per_launch, penalties.size() - first);
      for (size_t i = 0; i < count; ++i) args.seen[i] = {penalties[first + i].token, penalties[first + i].count};
      args.count = static_cast<int32_t>(count);
      args.before = next_before;
      with_device(logits.device(), [&]<DeviceKind kind>() { penalise_row<kind>(args); });
      if (next_before != nullptr) next_before += count;
    }
  }
}

}  // namespace

void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows) {
  const std::vector<RowPenalties> penalised = all_penalties(logits, rows);
  int64_t changes = 0;
  for (const RowPenalties& row : penalised) changes += static_cast<int64_t>(row.penalties.size());
  Tensor before;
  if (changes > 0 && logprobs.defined())
    before = Tensor::empty({changes}, DType::f32, logits.device(), MemoryTag::workspace);
  change_logits(logits, before, rows, penalised, Change::penalise);

  const bool has_changes = changes > 0;
  const Tensor room = states_for(std::min<int64_t>(sampled_rows_per_launch, logits.dim(0)), logits.device());
  SampleCuda args{
      .stride = logits.stride(0), .columns = logits.dim(1), .states = static_cast<SampleState*>(room.raw())};
  for (int64_t first = 0; first < logits.dim(0); first += sampled_rows_per_launch) {
    args.rows = std::min<int64_t>(sampled_rows_per_launch, logits.dim(0) - first);
    args.logits = logits.data<float>() + first * args.stride;
    args.tokens = tokens.data<int32_t>() + first;
    if (logprobs.defined() && !has_changes) args.logprobs = logprobs.data<float>() + first;
    args.filters = false;
    for (int64_t r = 0; r < args.rows; ++r) {
      args.settings[r] = settings_of(rows[static_cast<size_t>(first + r)]);
      args.filters = args.filters || args.settings[r].top_k > 0 || args.settings[r].top_p < 1.0f;
    }
    with_device(logits.device(), [&]<DeviceKind kind>() { sample_rows<kind>(args); });
  }
  if (!logprobs.defined() || !has_changes) return;
  // Of the model's own logits: the penalties are taken away for it, and put back as the caller expects them.
  change_logits(logits, before, rows, penalised, Change::restore);
  token_logprobs(logprobs, logits, tokens);
  change_logits(logits, {}, rows, penalised, Change::penalise);
}

Tensor sampling_settings(std::span<const SamplingRow> rows) {
  static_assert(sizeof(SampledRow) == sampling_setting_words * sizeof(int32_t));
  const Tensor settings = Tensor::zeros({static_cast<int64_t>(rows.size()), sampling_setting_words}, DType::i32);
  for (size_t b = 0; b < rows.size(); ++b) static_cast<SampledRow*>(settings.raw())[b] = settings_of(rows[b]);
  return settings;
}

void sample_with(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, const Tensor& settings) {
  const Tensor room = states_for(logits.dim(0), logits.device());
  const SampleCuda args{.logits = logits.data<float>(),
                        .stride = logits.stride(0),
                        .columns = logits.dim(1),
                        .tokens = tokens.data<int32_t>(),
                        .logprobs = logprobs.defined() ? logprobs.data<float>() : nullptr,
                        .states = static_cast<SampleState*>(room.raw()),
                        .rows = logits.dim(0),
                        .filters = true,  // who replays a graph may turn them on
                        .stored = static_cast<const SampledRow*>(settings.raw()),
                        .settings = {}};
  with_device(logits.device(), [&]<DeviceKind kind>() { sample_rows<kind>(args); });
}

}  // namespace lathe::kernels::device
