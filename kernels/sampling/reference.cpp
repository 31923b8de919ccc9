#include "kernels/sampling/reference.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/random.h"

namespace lathe::kernels::reference {
namespace {

struct Token {
  int32_t id;
  double logit, weight;
};

// Every token that is not banned, from the heaviest on, of equals the lower id first.
std::vector<Token> sorted_tokens(std::span<const double> logits, const SamplingParams& params) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<Token> tokens;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) continue;
    const double weight = std::exp((logits[i] - largest) / static_cast<double>(params.temperature));
    tokens.push_back({static_cast<int32_t>(i), logits[i], weight});
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) { return a.logit > b.logit; });
  return tokens;
}

std::vector<Token> filtered(std::span<const double> logits, const SamplingParams& params) {
  std::vector<Token> kept = sorted_tokens(logits, params);
  if (params.temperature < greedy_below) {
    kept.resize(1);
    return kept;
  }
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < kept.size()) {
    const double kth = kept[static_cast<size_t>(params.top_k - 1)].logit;
    std::erase_if(kept, [&](const Token& token) { return token.logit < kth; });
  }
  if (params.top_p < 1.0f) {
    double total = 0, sum = 0;
    for (const Token& token : kept) total += token.weight;
    size_t size = 0;
    while (size < kept.size() && sum < static_cast<double>(params.top_p) * total) sum += kept[size++].weight;
    kept.resize(size);
  }
  std::erase_if(kept, [&](const Token& token) { return token.weight < static_cast<double>(params.min_p); });
  std::sort(kept.begin(), kept.end(), [](const Token& a, const Token& b) { return a.id < b.id; });
  return kept;
}

void penalise(std::span<double> logits, const SamplingRow& row) {
  const SamplingParams& params = row.params;
  std::map<int32_t, int> counts;
  for (const int32_t token : row.output_tokens) ++counts[token];
  std::set<int32_t> seen(row.output_tokens.begin(), row.output_tokens.end());
  seen.insert(row.prompt_tokens.begin(), row.prompt_tokens.end());
  if (params.repetition_penalty != 1.0f) {
    const double repetition = static_cast<double>(params.repetition_penalty);
    for (const int32_t token : seen) {
      double& logit = logits[static_cast<size_t>(token)];
      logit = logit > 0 ? logit / repetition : logit * repetition;
    }
  }
  if (params.frequency_penalty == 0.0f && params.presence_penalty == 0.0f) return;
  for (const auto& [token, count] : counts) {
    logits[static_cast<size_t>(token)] -=
        static_cast<double>(params.frequency_penalty) * count + static_cast<double>(params.presence_penalty);
  }
}

double log_sum_exp(std::span<const double> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double z : logits) sum += std::exp(z - largest);
  return largest + std::log(sum);
}

int32_t draw(const std::vector<Token>& kept, const SamplingRow& row) {
  const PhiloxCounter bits = random_bits(row.params.seed, RandomPurpose::sampling, 0, row.position);
  const double u = static_cast<double>((uint64_t{bits[0]} << 21) ^ (bits[1] >> 11)) * 0x1p-53;
  double total = 0, sum = 0;
  for (const Token& token : kept) total += token.weight;
  for (const Token& token : kept) {
    sum += token.weight;
    if (sum > u * total) return token.id;
  }
  return kept.back().id;
}

}  // namespace

void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows) {
  for (int64_t b = 0; b < logits.dim(0); ++b) {
    const std::span<double> row = {logits.data<double>() + b * logits.stride(0), static_cast<size_t>(logits.dim(1))};
    const std::vector<double> model(row.begin(), row.end());
    const SamplingRow& settings = rows[static_cast<size_t>(b)];
    penalise(row, settings);
    const int32_t token = draw(filtered(row, settings.params), settings);
    tokens.data<int32_t>()[b] = token;
    if (logprobs.defined()) logprobs.data<double>()[b] = model[static_cast<size_t>(token)] - log_sum_exp(model);
  }
}

std::vector<int32_t> kept_tokens(std::span<const double> logits, const SamplingParams& params) {
  std::vector<int32_t> ids;
  for (const Token& token : filtered(logits, params)) ids.push_back(token.id);
  return ids;
}

}  // namespace lathe::kernels::reference
