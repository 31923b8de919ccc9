#include "kernels/sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/sampling/cpu.h"
#include "kernels/sampling/filters.h"

namespace lathe::kernels {
namespace {

constexpr float greedy_below = 1e-5f;

void check(const SamplingParams& params) {
  const auto demand = [](bool fits, const char* key, const char* expected, float found) {
    if (!fits) throw ConfigError(key, std::string("expected ") + expected + ", found " + std::to_string(found));
  };
  demand(params.temperature >= 0 && std::isfinite(params.temperature), "temperature", "a number ≥ 0",
         params.temperature);
  demand(params.top_k >= -1, "top_k", "a number of tokens, or 0 for all", static_cast<float>(params.top_k));
  demand(params.top_p > 0 && params.top_p <= 1, "top_p", "0 < top_p ≤ 1", params.top_p);
  demand(params.min_p >= 0 && params.min_p <= 1, "min_p", "0 ≤ min_p ≤ 1", params.min_p);
  demand(params.repetition_penalty > 0 && std::isfinite(params.repetition_penalty), "repetition_penalty",
         "a number > 0", params.repetition_penalty);
  demand(std::isfinite(params.presence_penalty), "presence_penalty", "a finite number", params.presence_penalty);
  demand(std::isfinite(params.frequency_penalty), "frequency_penalty", "a finite number", params.frequency_penalty);
}

struct Scan {
  float largest;
  int64_t first;
};

Scan scan(std::span<const float> logits, int64_t row) {
  Scan result{};
  uint8_t has_nan = 0;
  cpu::scan_logits({logits.data(), static_cast<int64_t>(logits.size()), &result.largest, &result.first, &has_nan});
  if (has_nan != 0 || !std::isfinite(result.largest)) {
    throw NumericError("sample: row " + std::to_string(row) + " of the logits " +
                       (has_nan != 0         ? "holds NaN"
                        : result.largest > 0 ? "holds +inf"
                                             : "holds no finite number") +
                       "; the model's weights or activations have gone wrong");
  }
  return result;
}

struct Penalised {
  int32_t token;
  float before;
};

// Changes the logits of tokens seen; returns what they were, by token.
std::vector<Penalised> penalise(std::span<float> logits, const SamplingRow& row) {
  const SamplingParams& params = row.params;
  const bool repetition = params.repetition_penalty != 1.0f;
  if (!repetition && params.presence_penalty == 0.0f && params.frequency_penalty == 0.0f) return {};
  std::vector<int32_t> output(row.output_tokens.begin(), row.output_tokens.end());
  std::sort(output.begin(), output.end());
  std::vector<int32_t> seen = output;
  if (repetition) {
    seen.insert(seen.end(), row.prompt_tokens.begin(), row.prompt_tokens.end());
    std::sort(seen.begin(), seen.end());
  }
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  std::vector<Penalised> changed;
  for (int32_t token : seen) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) {
      throw ShapeError("sample: a token of the prompt or output expects 0 ≤ id < " + std::to_string(logits.size()) +
                       ", found " + std::to_string(token));
    }
    float& logit = logits[static_cast<size_t>(token)];
    changed.push_back({token, logit});
    if (repetition) logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    const auto [begin, end] = std::equal_range(output.begin(), output.end(), token);
    if (begin != end) {
      logit -= params.frequency_penalty * static_cast<float>(end - begin) + params.presence_penalty;
    }
  }
  return changed;
}

// [0, 1) with 53 bits.
double draw(const SamplingRow& row) {
  const PhiloxCounter bits = random_bits(row.params.seed, RandomPurpose::sampling, 0, row.position);
  return static_cast<double>((uint64_t{bits[0]} << 21) ^ (bits[1] >> 11)) * 0x1.0p-53;
}

// The first token at which the running sum of weights exceeds target; rounding may leave the target just above the sum of
// all: then the last that has any weight.
template <class WeightAt>
int64_t walk(int64_t count, double target, WeightAt weight_at) {
  double sum = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double weight = weight_at(i);
    if (weight <= 0) continue;
    last = i;
    sum += weight;
    if (sum > target) return i;
  }
  return last;
}

int32_t pick_filtered(std::span<const Kept> kept, double u) {
  double total = 0;
  for (const Kept& token : kept) total += static_cast<double>(token.weight);
  const int64_t at = walk(static_cast<int64_t>(kept.size()), u * total,
                          [&](int64_t i) { return static_cast<double>(kept[static_cast<size_t>(i)].weight); });
  return kept[static_cast<size_t>(at)].token;
}

// Over the whole vocabulary: first the block by its sum, then the token within it.
int32_t pick(std::span<const float> logits, float largest, float temperature, double u) {
  const int64_t count = static_cast<int64_t>(logits.size());
  const float inverse = 1.0f / temperature;
  std::vector<float> sums(static_cast<size_t>((count + sampling_block - 1) / sampling_block));
  cpu::sampling_weights({logits.data(), count, largest, inverse, nullptr, sums.data()});
  double total = 0;
  for (float sum : sums) total += static_cast<double>(sum);
  const int64_t block = walk(static_cast<int64_t>(sums.size()), u * total,
                             [&](int64_t b) { return static_cast<double>(sums[static_cast<size_t>(b)]); });
  double before = 0;
  for (int64_t b = 0; b < block; ++b) before += static_cast<double>(sums[static_cast<size_t>(b)]);
  const int64_t start = block * sampling_block, size = std::min(sampling_block, count - start);
  float weights[sampling_block];
  cpu::sampling_weights({logits.data() + start, size, largest, inverse, weights, nullptr});
  return static_cast<int32_t>(
      start + walk(size, u * total - before, [&](int64_t i) { return static_cast<double>(weights[i]); }));
}

int32_t choose(std::span<const float> logits, const SamplingRow& row, const Scan& scanned) {
  if (row.params.temperature < greedy_below) return static_cast<int32_t>(scanned.first);
  if (!has_filters(row.params)) return pick(logits, scanned.largest, row.params.temperature, draw(row));
  return pick_filtered(filter(logits, scanned.largest, row.params), draw(row));
}

void sample_row(int32_t* token, float* logprob, std::span<float> logits, const SamplingRow& row, int64_t index) {
  Scan scanned = scan(logits, index);
  const float model_largest = scanned.largest;
  float log_sum = 0;
  if (logprob != nullptr) {
    cpu::normalise_logits({logits.data(), static_cast<int64_t>(logits.size()), model_largest, &log_sum});
  }
  const std::vector<Penalised> penalised = penalise(logits, row);
  if (!penalised.empty()) scanned = scan(logits, index);
  *token = choose(logits, row, scanned);
  if (logprob == nullptr) return;
  float logit = logits[static_cast<size_t>(*token)];
  for (const Penalised& changed : penalised) {
    if (changed.token == *token) logit = changed.before;
  }
  *logprob = (logit - model_largest) - log_sum;
}

}  // namespace

void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows) {
  expect("sample", "logits", logits).rank(2).dtype(DType::f32).rows_contiguous();
  expect("sample", "tokens", tokens).shape({logits.dim(0)}).dtype(DType::i32).contiguous();
  if (logprobs.defined()) expect("sample", "logprobs", logprobs).shape({logits.dim(0)}).dtype(DType::f32).contiguous();
  expect_cpu("sample", logits);
  if (static_cast<int64_t>(rows.size()) != logits.dim(0)) {
    throw ShapeError("sample: rows expects one entry for each of the " + std::to_string(logits.dim(0)) +
                     " rows of logits, found " + std::to_string(rows.size()));
  }
  if (rows.empty()) return;
  if (logits.dim(1) == 0) throw ShapeError("sample: logits expects a vocabulary, found " + describe(logits));
  for (const SamplingRow& row : rows) check(row.params);
  const size_t vocabulary = static_cast<size_t>(logits.dim(1));
  parallel_for(logits.dim(0), std::max<int64_t>(1, 8192 / logits.dim(1)), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      sample_row(tokens.data<int32_t>() + b, logprobs.defined() ? logprobs.data<float>() + b : nullptr,
                 {logits.data<float>() + b * logits.stride(0), vocabulary}, rows[static_cast<size_t>(b)], b);
    }
  });
}

std::vector<Kept> kept_tokens(std::span<const float> logits, const SamplingParams& params) {
  check(params);
  const Scan scanned = scan(logits, 0);
  if (params.temperature < greedy_below) return {{static_cast<int32_t>(scanned.first), 1.0f}};
  if (has_filters(params)) return filter(logits, scanned.largest, params);
  SamplingParams all = params;
  all.top_k = static_cast<int32_t>(logits.size());
  return filter(logits, scanned.largest, all);
}

}  // namespace lathe::kernels
