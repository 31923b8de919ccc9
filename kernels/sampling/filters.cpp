// top-k, top-p and min-p without sorting the vocabulary: the largest logits are collected in one pass over the row, and
// only those are sorted, or only those at the edge of a wide nucleus.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/dispatch.h"
#include "kernels/sampling/cpu.h"
#include "kernels/sampling/filters.h"

namespace lathe::kernels {
namespace {

struct Candidate {
  float logit;
  int32_t token;
};

bool heavier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// The candidates whose logit is at least the k-th largest of the row: k of them, and more where there are ties. Tokens
// at −inf never count.
std::vector<Candidate> largest(std::span<const float> logits, size_t k) {
  std::vector<Candidate> found;
  float threshold = -std::numeric_limits<float>::infinity();
  const auto prune = [&] {
    if (found.size() <= k) return;
    const auto kth = found.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(found.begin(), kth, found.end(), heavier);
    threshold = kth->logit;
    std::erase_if(found, [&](const Candidate& candidate) { return candidate.logit < threshold; });
  };
  size_t room = 2 * k + 256;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] < threshold || logits[i] == -std::numeric_limits<float>::infinity()) continue;
    found.push_back({logits[i], static_cast<int32_t>(i)});
    if (found.size() < room) continue;
    prune();
    room = 2 * found.size() + 256;  // ties may keep more than k
  }
  prune();
  return found;
}

struct Weighing {
  float largest, inverse_temperature;
  std::vector<uint64_t> of(std::span<const float> logits) const {
    std::vector<uint64_t> weights(logits.size());
    const SamplingWeights args{
        logits.data(), static_cast<int64_t>(logits.size()), largest, inverse_temperature, weights.data(), nullptr};
    with_isa([&]<Isa isa>() { sampling_weights<isa>(args); });
    return weights;
  }
  uint64_t total(std::span<const float> logits) const {
    std::vector<uint64_t> sums((logits.size() + sampling_block - 1) / sampling_block);
    const SamplingWeights args{
        logits.data(), static_cast<int64_t>(logits.size()), largest, inverse_temperature, nullptr, sums.data()};
    with_isa([&]<Isa isa>() { sampling_weights<isa>(args); });
    return std::accumulate(sums.begin(), sums.end(), uint64_t{0});
  }
};

std::vector<Kept> weigh(const std::vector<Candidate>& candidates, const Weighing& weighing) {
  std::vector<float> logits(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) logits[i] = candidates[i].logit;
  const std::vector<uint64_t> weights = weighing.of(logits);
  std::vector<Kept> kept(candidates.size());
  for (size_t i = 0; i < kept.size(); ++i) kept[i] = {candidates[i].token, weights[i]};
  return kept;
}

// How many of the heaviest are needed; 0 when these do not reach it.
size_t nucleus_size(const std::vector<Kept>& kept, uint64_t needed) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    sum += kept[i].weight;
    if (sum >= needed) return i + 1;
  }
  return 0;
}

// The nucleus when these are heavy enough, and nothing otherwise.
std::vector<Kept> nucleus_of(std::vector<Candidate> candidates, uint64_t needed, const Weighing& weighing) {
  std::sort(candidates.begin(), candidates.end(), heavier);
  std::vector<Kept> kept = weigh(candidates, weighing);
  kept.resize(nucleus_size(kept, needed));
  return kept;
}

// A row's weights by how far its logits lie below the largest, so that only the bin in which the nucleus ends is
// sorted: 8 rows of 128256 normal logits, whose nucleus is a tenth of them, took 44 ms with a sort.
constexpr float bins_per_unit = 64;
constexpr size_t distance_bins = 2048;  // the last also holds what is too light to be drawn
static_assert(distance_bins / bins_per_unit > 40 * 0.6932f);

size_t distance_bin(float logit, const Weighing& weighing) {
  const float distance = (weighing.largest - logit) * weighing.inverse_temperature;
  return static_cast<size_t>(std::min(distance * bins_per_unit, static_cast<float>(distance_bins - 1)));
}

std::vector<Kept> wide_nucleus(std::span<const float> logits, uint64_t needed, const Weighing& weighing) {
  const std::vector<uint64_t> weights = weighing.of(logits);
  std::vector<uint64_t> sums(distance_bins);
  for (size_t i = 0; i < logits.size(); ++i) sums[distance_bin(logits[i], weighing)] += weights[i];
  size_t last = 0;
  uint64_t before = 0;  // the weight of the bins before the last
  while (before + sums[last] < needed) before += sums[last++];
  std::vector<Kept> kept;
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < logits.size(); ++i) {
    const size_t bin = distance_bin(logits[i], weighing);
    if (bin < last) kept.push_back({static_cast<int32_t>(i), weights[i]});
    if (bin == last) candidates.push_back({logits[i], static_cast<int32_t>(i)});
  }
  const std::vector<Kept> end = nucleus_of(std::move(candidates), needed - before, weighing);
  kept.insert(kept.end(), end.begin(), end.end());
  return kept;
}

// The nucleus of the whole row, which usually needs few tokens.
std::vector<Kept> nucleus(std::span<const float> logits, float top_p, const Weighing& weighing) {
  constexpr size_t few = 64;
  const uint64_t needed = weight_needed(top_p, weighing.total(logits));
  std::vector<Kept> kept = nucleus_of(largest(logits, std::min(few, logits.size())), needed, weighing);
  return kept.empty() ? wide_nucleus(logits, needed, weighing) : kept;
}

}  // namespace

bool has_filters(const SamplingParams& params) {
  return params.top_k > 0 || params.top_p < 1.0f || params.min_p > 0.0f;
}

uint64_t weight_needed(float top_p, uint64_t total) {
  return static_cast<uint64_t>(std::ceil(static_cast<double>(top_p) * static_cast<double>(total)));
}

uint64_t least_weight(float min_p) { return static_cast<uint64_t>(std::ceil(static_cast<double>(min_p) * 0x1p40)); }

std::vector<Kept> filter(std::span<const float> logits, float largest_logit, const SamplingParams& params) {
  const Weighing weighing{largest_logit, 1.0f / params.temperature};
  // The heaviest token's weight is 2^40, because logits are taken relative to its own. A token without weight is never
  // drawn.
  const uint64_t least = std::max<uint64_t>(1, least_weight(params.min_p));
  std::vector<Kept> kept;
  if (params.top_k > 0) {
    const size_t k = std::min(static_cast<size_t>(params.top_k), logits.size());
    std::vector<Candidate> candidates = largest(logits, k);
    std::sort(candidates.begin(), candidates.end(), heavier);
    kept = weigh(candidates, weighing);
    if (params.top_p < 1.0f) {
      uint64_t total = 0;
      for (const Kept& token : kept) total += token.weight;
      kept.resize(nucleus_size(kept, weight_needed(params.top_p, total)));
    }
  } else if (params.top_p < 1.0f) {
    kept = nucleus(logits, params.top_p, weighing);
  } else {
    const std::vector<uint64_t> weights = weighing.of(logits);
    for (size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] >= least) kept.push_back({static_cast<int32_t>(i), weights[i]});
    }
    return kept;
  }
  std::erase_if(kept, [&](const Kept& token) { return token.weight < least; });
  std::sort(kept.begin(), kept.end(), [](const Kept& a, const Kept& b) { return a.token < b.token; });
  return kept;
}

}  // namespace lathe::kernels
