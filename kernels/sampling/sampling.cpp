#include "kernels/sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/sampling/cpu.h"
#include "kernels/sampling/device.h"
#include "kernels/sampling/draw.h"
#include "kernels/sampling/filters.h"
#include "kernels/sampling/penalties.h"
#include "kernels/sampling/reference.h"

namespace lathe::kernels {
namespace {

void check(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits) {
  expect("sample", "logits", logits).rank(2).dtype({DType::f32, DType::f64}).rows_contiguous();
  expect("sample", "tokens", tokens).shape({logits.dim(0)}).dtype(DType::i32).contiguous();
  if (logprobs.defined())
    expect("sample", "logprobs", logprobs).shape({logits.dim(0)}).dtype(logits.dtype()).contiguous();
  expect("sample", "tokens", tokens).device(logits.device());
  if (logprobs.defined()) expect("sample", "logprobs", logprobs).device(logits.device());
  if (logits.dim(0) > 0 && (logits.dim(1) == 0 || logits.dim(1) >= 1 << 24))
    throw ShapeError("sample: logits expects a vocabulary of 1 to 2^24 − 1 tokens, found " + describe(logits));
}

[[noreturn]] void throw_broken(int64_t row, BrokenLogits why) {
  throw NumericError("sample: row " + std::to_string(row) + " of the logits " + reason_of(why) +
                     "; the model's weights or activations have gone wrong");
}

struct Scan {
  float largest;
  int64_t first;
  std::optional<BrokenLogits> broken;
};

Scan scan(std::span<const float> logits) {
  Scan result{};
  uint8_t has_nan = 0;
  const LogitScan scan{logits.data(), static_cast<int64_t>(logits.size()), &result.largest, &result.first, &has_nan};
  with_isa([&]<Isa isa>() { scan_logits<isa>(scan); });
  if (has_nan != 0) {
    result.broken = BrokenLogits::nan;
  } else if (!std::isfinite(result.largest)) {
    result.broken = result.largest > 0 ? BrokenLogits::infinite : BrokenLogits::none_finite;
  }
  return result;
}

// What the logits of the penalised tokens were, in the order of `penalties`.
std::vector<float> penalise(std::span<float> logits, const SamplingParams& params, std::span<const Penalty> penalties) {
  std::vector<float> before;
  for (const auto& [token, count] : penalties) {
    float& logit = logits[static_cast<size_t>(token)];
    before.push_back(logit);
    if (params.repetition_penalty != 1.0f)
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (count > 0) logit -= params.frequency_penalty * static_cast<float>(count) + params.presence_penalty;
  }
  return before;
}

// u · total, which is below total: u in [0, 1) has 53 bits.
uint64_t draw(const SamplingRow& row, uint64_t total) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<uint64_t>((Wide{draw_bits(row)} * total) >> 64);
}

// The first token at which the running sum of weights exceeds target; target becomes what is left of it there.
template <class WeightAt>
size_t walk(uint64_t& target, WeightAt weight_at) {
  for (size_t i = 0;; ++i) {
    const uint64_t weight = weight_at(i);
    if (weight > target) return i;
    target -= weight;
  }
}

int32_t pick_filtered(std::span<const Kept> kept, const SamplingRow& row) {
  uint64_t total = 0;
  for (const Kept& token : kept) total += token.weight;
  uint64_t target = draw(row, total);
  return kept[walk(target, [&](size_t i) { return kept[i].weight; })].token;
}

// Over the whole vocabulary: first the block by its sum, then the token within it.
int32_t pick(std::span<const float> logits, float largest, const SamplingRow& row) {
  const int64_t count = static_cast<int64_t>(logits.size());
  const float inverse = 1.0f / row.params.temperature;
  std::vector<uint64_t> sums(static_cast<size_t>((count + sampling_block - 1) / sampling_block));
  with_isa([&]<Isa isa>() { sampling_weights<isa>({logits.data(), count, largest, inverse, nullptr, sums.data()}); });
  uint64_t target = draw(row, std::accumulate(sums.begin(), sums.end(), uint64_t{0}));
  const int64_t start = static_cast<int64_t>(walk(target, [&](size_t b) { return sums[b]; })) * sampling_block;
  uint64_t weights[sampling_block];
  with_isa([&]<Isa isa>() {
    sampling_weights<isa>(
        {logits.data() + start, std::min(sampling_block, count - start), largest, inverse, weights, nullptr});
  });
  return static_cast<int32_t>(start) + static_cast<int32_t>(walk(target, [&](size_t i) { return weights[i]; }));
}

int32_t choose(std::span<const float> logits, const SamplingRow& row, const Scan& scanned) {
  if (row.params.temperature < greedy_below) return static_cast<int32_t>(scanned.first);
  if (!has_filters(row.params)) return pick(logits, scanned.largest, row);
  return pick_filtered(filter(logits, scanned.largest, row.params), row);
}

void sample_row(int32_t* token, float* logprob, std::span<float> logits, const SamplingRow& row) {
  Scan scanned = scan(logits);
  const auto mark = [&] {
    *token = static_cast<int32_t>(*scanned.broken);
    if (logprob != nullptr) *logprob = std::numeric_limits<float>::quiet_NaN();
  };
  if (scanned.broken) return mark();
  const float model_largest = scanned.largest;
  float log_sum = 0;
  if (logprob != nullptr) {
    const LogitNormaliser normaliser{logits.data(), static_cast<int64_t>(logits.size()), model_largest, &log_sum};
    with_isa([&]<Isa isa>() { normalise_logits<isa>(normaliser); });
  }
  const std::vector<Penalty> penalties = penalties_of(row, static_cast<int64_t>(logits.size()));
  const std::vector<float> before = penalise(logits, row.params, penalties);
  if (!penalties.empty()) scanned = scan(logits);
  if (scanned.broken) return mark();
  *token = choose(logits, row, scanned);
  if (logprob == nullptr) return;
  float logit = logits[static_cast<size_t>(*token)];
  for (size_t i = 0; i < penalties.size(); ++i) {
    if (penalties[i].token == *token) logit = before[i];
  }
  *logprob = (logit - model_largest) - log_sum;
}

}  // namespace

void check_sampling(const SamplingParams& params) {
  const auto need = [](bool holds, const char* key, double found, const char* expected) {
    if (!holds) throw ConfigError(key, std::string("expected ") + expected + ", found " + std::to_string(found));
  };
  need(params.temperature >= 0 && std::isfinite(params.temperature), "temperature", params.temperature, "0 or more");
  need(params.top_k >= -1, "top_k", params.top_k, "0 (off) or more");
  need(params.top_p > 0 && params.top_p <= 1, "top_p", params.top_p, "above 0, at most 1");
  need(params.min_p >= 0 && params.min_p <= 1, "min_p", params.min_p, "from 0 to 1");
  need(params.repetition_penalty > 0 && std::isfinite(params.repetition_penalty), "repetition_penalty",
       params.repetition_penalty, "above 0");
  need(std::isfinite(params.presence_penalty), "presence_penalty", params.presence_penalty, "a finite number");
  need(std::isfinite(params.frequency_penalty), "frequency_penalty", params.frequency_penalty, "a finite number");
}

void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows,
            BrokenRows broken) {
  check(tokens, logprobs, logits);
  if (static_cast<int64_t>(rows.size()) != logits.dim(0)) {
    throw ShapeError("sample: rows expects one entry for each of the " + std::to_string(logits.dim(0)) +
                     " rows of logits, found " + std::to_string(rows.size()));
  }
  if (rows.empty()) return;
  for (const SamplingRow& row : rows) check_sampling(row.params);
  if (logits.device().kind != DeviceKind::cpu) {
    expect("sample", "logits", logits).dtype(DType::f32);
    return device::sample(tokens, logprobs, logits, rows);
  }
  if (logits.dtype() == DType::f64) return reference::sample(tokens, logprobs, logits, rows);
  const size_t vocabulary = static_cast<size_t>(logits.dim(1));
  parallel_for(logits.dim(0), std::max<int64_t>(1, 8192 / logits.dim(1)), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      sample_row(tokens.data<int32_t>() + b, logprobs.defined() ? logprobs.data<float>() + b : nullptr,
                 {logits.data<float>() + b * logits.stride(0), vocabulary}, rows[static_cast<size_t>(b)]);
    }
  });
  if (broken == BrokenRows::refused) expect_sampled(tokens.span<int32_t>());
}

Tensor sampling_settings(std::span<const SamplingRow> rows) {
  for (const SamplingRow& row : rows) {
    check_sampling(row.params);
    if (has_penalties(row.params))
      throw ConfigError("repetition_penalty", "settings in device memory hold no penalties: use sample()");
  }
  return device::sampling_settings(rows);
}

void sample_with(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, const Tensor& settings) {
  check(tokens, logprobs, logits);
  expect("sample_with", "logits", logits).dtype(DType::f32);
  expect("sample_with", "settings", settings)
      .shape({logits.dim(0), sampling_setting_words})
      .dtype(DType::i32)
      .contiguous();
  expect("sample_with", "settings", settings).device(logits.device());
  if (logits.device().kind == DeviceKind::cpu || reinterpret_cast<uintptr_t>(settings.raw()) % 8 != 0)
    throw ShapeError("sample_with: settings expects device memory at a multiple of 8 bytes, found " +
                     describe(settings));
  if (logits.dim(0) > 0) device::sample_with(tokens, logprobs, logits, settings);
}

const char* reason_of(BrokenLogits why) {
  switch (why) {
    case BrokenLogits::nan: return "holds NaN";
    case BrokenLogits::infinite: return "holds +inf";
    case BrokenLogits::none_finite: break;
  }
  return "holds no finite number";
}

void expect_sampled(std::span<const int32_t> tokens) {
  for (size_t row = 0; row < tokens.size(); ++row) {
    if (tokens[row] < 0) throw_broken(static_cast<int64_t>(row), static_cast<BrokenLogits>(tokens[row]));
  }
}

std::vector<Kept> kept_tokens(std::span<const float> logits, const SamplingParams& params) {
  check_sampling(params);
  const Scan scanned = scan(logits);
  if (scanned.broken) throw_broken(0, *scanned.broken);
  if (params.temperature < greedy_below) return {{static_cast<int32_t>(scanned.first), uint64_t{1} << 40}};
  if (has_filters(params)) return filter(logits, scanned.largest, params);
  SamplingParams all = params;
  all.top_k = static_cast<int32_t>(logits.size());
  return filter(logits, scanned.largest, all);
}

}  // namespace lathe::kernels
