#include "serve/engine/sampler.h"

#include <algorithm>
#include <limits>

#include "kernels/copy/copy.h"
#include "kernels/cuda/profiler_range.h"

namespace lathe::engine {
namespace {

// A row of the model's logits on the host, and log Σ exp(logits − the largest).
template <class Real>
struct ModelRow {
  std::span<const Real> logits;
  Real largest, log_sum;
  // As kernels::token_logprobs adds it up.
  float logprob(int32_t token) const {
    return static_cast<float>((logits[static_cast<size_t>(token)] - largest) - log_sum);
  }
};

// The `count` likeliest, of equals the lower id first.
template <class Real>
std::vector<TokenLogprob> likeliest(const ModelRow<Real>& row, int32_t count) {
  if (count == 0) return {};
  std::vector<int32_t> best;
  for (size_t i = 0; i < row.logits.size(); ++i) {
    if (static_cast<int32_t>(best.size()) == count) {
      if (!(row.logits[i] > row.logits[static_cast<size_t>(best.back())])) continue;
      best.pop_back();
    }
    const auto place = std::upper_bound(best.begin(), best.end(), row.logits[i], [&](Real logit, int32_t token) {
      return logit > row.logits[static_cast<size_t>(token)];
    });
    best.insert(place, static_cast<int32_t>(i));
  }
  std::vector<TokenLogprob> result;
  for (const int32_t token : best) result.push_back({token, row.logprob(token)});
  return result;
}

template <class Real>
int32_t draw_changed(const ModelRow<Real>& row, DType dtype, const RowToDraw& settings) {
  const Tensor changed = Tensor::empty({1, static_cast<int64_t>(row.logits.size())}, dtype);
  const std::span<Real> logits = changed.span<Real>();
  std::copy(row.logits.begin(), row.logits.end(), logits.begin());
  for (const auto& [token, bias] : settings.logit_bias) logits[static_cast<size_t>(token)] += static_cast<Real>(bias);
  constexpr Real never = -std::numeric_limits<Real>::infinity();
  for (const int32_t token : settings.banned)
    if (token >= 0 && static_cast<size_t>(token) < logits.size()) logits[static_cast<size_t>(token)] = never;
  if (!settings.allowed.empty())
    for (size_t i = 0; i < logits.size(); ++i)
      if (!in_mask(settings.allowed, static_cast<int32_t>(i))) logits[i] = never;
  const Tensor token = Tensor::empty({1}, DType::i32);
  kernels::sample(token, {}, changed, std::span(&settings.sampling, 1), kernels::BrokenRows::marked);
  return token.data<int32_t>()[0];
}

// `greedy` is the row's likeliest token: its logit is the largest, and its log-probability tells the row's log-sum.
template <class Real>
void draw_on_host(DrawnToken& drawn, Real greedy_logprob, const Tensor& logits, const RowToDraw& settings) {
  const std::span<const Real> values = logits.span<Real>();
  const ModelRow<Real> row{values, values[static_cast<size_t>(drawn.token)], -greedy_logprob};
  drawn.token = draw_changed(row, logits.dtype(), settings);
  if (drawn.token < 0) return;
  drawn.logprob = row.logprob(drawn.token);
  if (settings.top_logprobs > 0) drawn.top_logprobs = likeliest(row, settings.top_logprobs);
}

template <class Real>
PromptLogprob logprob_of(int32_t token, int32_t greedy, Real greedy_logprob, std::span<const Real> logits,
                         int32_t top_logprobs) {
  const ModelRow<Real> row{logits, logits[static_cast<size_t>(greedy)], -greedy_logprob};
  const Real logit = logits[static_cast<size_t>(token)];
  const auto above = std::ranges::count_if(logits, [&](Real other) { return other > logit; });
  return {token, row.logprob(token), above + 1, likeliest(row, top_logprobs)};
}

}  // namespace

std::vector<PromptLogprob> logprobs_of(const Tensor& logits, std::span<const int32_t> tokens, int32_t top_logprobs) {
  const std::vector<kernels::SamplingRow> greedy(tokens.size(), {.params = {.temperature = 0}});
  const Drawn drawn = room_to_draw(logits);
  kernels::sample(drawn.tokens, drawn.logprobs, logits, greedy, kernels::BrokenRows::marked);
  const Tensor likely = kernels::moved(drawn.tokens, {}), sums = kernels::moved(drawn.logprobs, {});
  const Tensor rows = kernels::moved(logits, {});
  std::vector<PromptLogprob> result;
  for (int64_t i = 0; i < rows.dim(0); ++i) {
    const int32_t token = tokens[static_cast<size_t>(i)], first = likely.data<int32_t>()[i];
    const Tensor row = rows.select(0, i);
    if (first < 0) {
      result.push_back({token, std::numeric_limits<float>::quiet_NaN(), 0, {}});
    } else if (rows.dtype() == DType::f64) {
      result.push_back(logprob_of<double>(token, first, sums.data<double>()[i], row.span<double>(), top_logprobs));
    } else {
      result.push_back(logprob_of<float>(token, first, sums.data<float>()[i], row.span<float>(), top_logprobs));
    }
  }
  return result;
}

std::vector<DrawnToken> draw(const Tensor& logits, std::span<const RowToDraw> rows) {
  const kernels::ProfilerRange range("sample");
  // Rows for the host are drawn here, too, without penalties and greedily: that tells their largest logit and log-sum.
  std::vector<kernels::SamplingRow> here;
  for (const RowToDraw& row : rows)
    here.push_back(row.on_host() ? kernels::SamplingRow{.params = {.temperature = 0}} : row.sampling);
  const Drawn drawn = room_to_draw(logits);
  kernels::sample(drawn.tokens, drawn.logprobs, logits, here, kernels::BrokenRows::marked);
  std::vector<DrawnToken> result = on_host(drawn);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].on_host() || result[i].token < 0) continue;
    const auto index = static_cast<int64_t>(i);
    const Tensor row = kernels::moved(logits.select(0, index), {});
    const Tensor logprob = kernels::moved(drawn.logprobs.slice(0, index, index + 1), {});
    if (row.dtype() == DType::f64) {
      draw_on_host<double>(result[i], logprob.data<double>()[0], row, rows[i]);
    } else {
      draw_on_host<float>(result[i], logprob.data<float>()[0], row, rows[i]);
    }
  }
  return result;
}

Drawn room_to_draw(const Tensor& logits) {
  const Shape shape{logits.dim(0)};
  return {Tensor::empty(shape, DType::i32, logits.device()), Tensor::empty(shape, logits.dtype(), logits.device())};
}

std::vector<DrawnToken> on_host(const Drawn& drawn) {
  const Tensor tokens = kernels::moved(drawn.tokens, {});  // the step's one wait for the device
  const Tensor logprobs = kernels::cast(kernels::moved(drawn.logprobs, {}), DType::f32);
  std::vector<DrawnToken> result;
  for (int64_t i = 0; i < tokens.numel(); ++i) result.push_back({tokens.data<int32_t>()[i], logprobs.data<float>()[i]});
  return result;
}

}  // namespace lathe::engine
