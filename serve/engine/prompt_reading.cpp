#include "serve/engine/prompt_reading.h"

#include <algorithm>
#include <cmath>

#include "kernels/copy/copy.h"
#include "serve/engine/sampler.h"
#include "serve/engine/scheduler.h"

namespace lathe::engine {
namespace {

constexpr int64_t rows_at_once = 64;  // of logits: 12 MB with a vocabulary of 49,152

// `rows` are the hidden states of the tokens from `position` on: each tells how likely the next token was.
void read_logprobs(const nn::Transformer& model, Sequence& sequence, const Tensor& rows, int64_t position,
                   float logits_temperature) {
  std::vector<PromptLogprob>& known = sequence.prompt_reading.logprobs;
  const int64_t first = std::max(position, static_cast<int64_t>(known.size()));
  const int64_t end = std::min(position + rows.dim(0), static_cast<int64_t>(sequence.prompt_length) - 1);
  for (int64_t begin = first; begin < end; begin += rows_at_once) {
    const int64_t count = std::min(rows_at_once, end - begin);
    const Tensor logits = model.logits(rows.slice(0, begin - position, begin - position + count), logits_temperature);
    const auto tokens = sequence.prompt().subspan(static_cast<size_t>(begin) + 1, static_cast<size_t>(count));
    for (PromptLogprob& one : logprobs_of(logits, tokens, *sequence.request.prompt_logprobs))
      known.push_back(std::move(one));
  }
}

void pool(Sequence& sequence, const Tensor& rows, int64_t position) {
  PromptReading& reading = sequence.prompt_reading;
  const int64_t end = position + rows.dim(0);
  const bool mean = sequence.request.pooling == Pooling::mean;
  const int64_t begin = mean ? std::max(position, reading.pooled) : sequence.length() - 1;
  if (begin >= end) return;
  const Tensor values = kernels::cast(kernels::moved(rows.slice(0, begin - position, rows.dim(0)), {}), DType::f32);
  const int64_t width = values.dim(1);
  if (!mean || reading.pooled == 0) reading.sums.assign(static_cast<size_t>(width), 0.0);
  for (int64_t row = 0; row < values.dim(0); ++row)
    for (int64_t i = 0; i < width; ++i) reading.sums[static_cast<size_t>(i)] += values.data<float>()[row * width + i];
  reading.pooled = end;
}

}  // namespace

void read_prompts(const nn::Transformer& model, std::span<const ScheduledSequence> scheduled,
                  std::span<const int32_t> bounds, const Tensor& hidden, float logits_temperature) {
  for (size_t i = 0; i < scheduled.size(); ++i) {
    Sequence& sequence = *scheduled[i].sequence;
    const bool logprobs = sequence.request.prompt_logprobs && sequence.output().empty();
    if (!logprobs && !sequence.request.pooling) continue;
    const Tensor rows = hidden.slice(0, bounds[i], bounds[i] + scheduled[i].tokens);
    if (sequence.request.pooling) pool(sequence, rows, sequence.cached);
    if (logprobs) read_logprobs(model, sequence, rows, sequence.cached, logits_temperature);
  }
}

std::vector<float> embedding_of(const PromptReading& reading) {
  double squares = 0;
  for (const double sum : reading.sums) squares += sum * sum;
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  std::vector<float> embedding;
  for (const double sum : reading.sums) embedding.push_back(static_cast<float>(sum * scale));
  return embedding;
}

}  // namespace lathe::engine
