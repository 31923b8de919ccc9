#include "train/grpo/policy_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace lathe::train {
namespace {

struct NamedLoss {
  std::string_view name;
  PolicyLossType type;
};
constexpr NamedLoss named_losses[] = {{"grpo", PolicyLossType::grpo},       {"bnpo", PolicyLossType::bnpo},
                                      {"dr_grpo", PolicyLossType::dr_grpo}, {"dapo", PolicyLossType::dapo},
                                      {"cispo", PolicyLossType::cispo},     {"sapo", PolicyLossType::sapo},
                                      {"luspo", PolicyLossType::luspo},     {"vespo", PolicyLossType::vespo}};

bool clips(PolicyLossType type) {
  return type != PolicyLossType::cispo && type != PolicyLossType::sapo && type != PolicyLossType::vespo;
}

double at_least_one(int64_t count) { return static_cast<double>(std::max<int64_t>(count, 1)); }

// TRL clamps a token's log ratio to ±20 and w to [1e-8, e^20].
constexpr double vespo_largest_log = 20.0, vespo_least_w = 1e-8;

}  // namespace

std::optional<PolicyLossType> parse_policy_loss(std::string_view name) {
  for (const NamedLoss& loss : named_losses)
    if (loss.name == name) return loss.type;
  return {};
}

// A token's loss, its derivative by the log-probability with ρ held, and ρ · its derivative by ρ.
struct PolicyLoss::Token {
  double loss, direct, through_ratio;
};

PolicyLoss::Token PolicyLoss::token_loss(double logprob, double ratio, double advantage) const {
  const PolicyLossOptions& o = options_;
  if (o.loss_type == PolicyLossType::cispo) {
    const double weight = -std::min(ratio, o.epsilon_high) * advantage;
    return {weight * logprob, weight, 0};
  }
  if (o.loss_type == PolicyLossType::sapo) {
    const double temperature = advantage > 0 ? o.sapo_temperature_pos : o.sapo_temperature_neg;
    const double gate = 1 / (1 + std::exp(-temperature * (ratio - 1)));
    return {-advantage * gate * 4 / temperature, 0, -advantage * 4 * gate * (1 - gate) * ratio};
  }
  const double lowest = 1 - o.epsilon, highest = 1 + o.epsilon_high;
  const double capped = o.delta ? std::min(ratio, *o.delta) : ratio;
  const double plain = capped * advantage, clipped = std::clamp(ratio, lowest, highest) * advantage;
  const double slope = ratio * advantage;
  const double plain_slope = o.delta && ratio > *o.delta ? 0 : slope;
  const double clipped_slope = ratio < lowest || ratio > highest ? 0 : slope;
  const double through = plain < clipped   ? plain_slope
                         : clipped < plain ? clipped_slope
                                           : (plain_slope + clipped_slope) / 2;
  return {-std::min(plain, clipped), 0, -through};
}

double PolicyLoss::token_weight(int64_t tokens) const {
  switch (options_.loss_type) {
    case PolicyLossType::grpo:
    case PolicyLossType::sapo: return 1 / (at_least_one(tokens) * at_least_one(size_.completions));
    case PolicyLossType::bnpo: return 1 / at_least_one(size_.tokens);
    case PolicyLossType::dr_grpo:
      return 1 / (at_least_one(size_.completions) * static_cast<double>(options_.max_completion_length));
    case PolicyLossType::dapo:
    case PolicyLossType::cispo:
    case PolicyLossType::vespo: return size_.updates_per_generation / at_least_one(size_.generation_tokens);
    case PolicyLossType::luspo: return 1 / at_least_one(size_.completions);
  }
  return 0;
}

EntropyFloor entropy_floor(std::vector<double> entropies, double top_entropy_quantile) {
  if (entropies.empty() || top_entropy_quantile >= 1) return {};
  std::sort(entropies.begin(), entropies.end());
  double position = (1 - top_entropy_quantile) * static_cast<double>(entropies.size() - 1);
  if (std::abs(position - std::round(position)) < 1e-6) position = std::round(position);  // 7.000000000000001 is 7
  const auto below = static_cast<size_t>(position), above = std::min(below + 1, entropies.size() - 1);
  const double share = position - static_cast<double>(below);
  const double least = entropies[below] + share * (entropies[above] - entropies[below]);
  return {least, std::count_if(entropies.begin(), entropies.end(), [&](double value) { return value >= least; })};
}

double PolicyLoss::vespo_phi(double log_ratio_sum, double advantage) const {
  const double k = advantage >= 0 ? options_.vespo_k_pos : options_.vespo_k_neg;
  const double lambda = std::max(advantage >= 0 ? options_.vespo_lambda_pos : options_.vespo_lambda_neg, 1e-4);
  const double log_w = std::clamp(log_ratio_sum, std::log(vespo_least_w), vespo_largest_log);
  return std::exp(lambda + k * log_w - lambda * std::exp(log_w));
}

void PolicyLoss::add(const PolicySequence& s, std::span<double> gradients, std::span<double> entropy_gradients) {
  ++completions_;
  std::fill(gradients.begin(), gradients.end(), 0.0);
  std::fill(entropy_gradients.begin(), entropy_gradients.end(), 0.0);
  const size_t n = s.logprobs.size();
  std::vector<double> ratios(n, 1.0);
  double log_ratios = 0, clamped_log_ratios = 0;
  for (size_t t = 0; t < n; ++t) {
    const double log_ratio = s.logprobs[t] - s.old_logprobs[t];
    log_ratios += log_ratio;
    clamped_log_ratios += std::clamp(log_ratio, -vespo_largest_log, vespo_largest_log);
    ratios[t] = std::exp(log_ratio);
  }
  const bool by_sequence = options_.importance_sampling_level == ImportanceLevel::sequence;
  if (by_sequence && !s.masked && n > 0)
    std::fill(ratios.begin(), ratios.end(), std::exp(log_ratios / static_cast<double>(n)));
  const double phi = vespo_phi(s.masked ? 0 : clamped_log_ratios, s.advantage);
  phi_ += phi;
  count(s, ratios);
  if (s.masked) return;
  tokens_ += static_cast<int64_t>(n);

  const double weight = token_weight(static_cast<int64_t>(n));
  // −log_ratios ÷ n is the mean of o − l.
  const bool off_policy = options_.off_policy_mask_threshold && s.advantage < 0 &&
                          -log_ratios / at_least_one(static_cast<int64_t>(n)) > *options_.off_policy_mask_threshold;
  const double entropy_weight = 1 / at_least_one(size_.entropy.tokens > 0 ? size_.entropy.tokens : size_.tokens);
  double through_shared_ratio = 0;
  for (size_t t = 0; t < n; ++t) {
    Token token = options_.loss_type == PolicyLossType::vespo
                      ? Token{-phi * s.advantage * s.logprobs[t], -phi * s.advantage, 0}
                      : token_loss(s.logprobs[t], ratios[t], s.advantage);
    const bool likely = !s.entropies.empty() && s.entropies[t] < size_.entropy.least;
    if (off_policy || likely) token = {0, 0, 0};
    if (!s.entropies.empty() && !likely) {
      entropy_ += entropy_weight * s.entropies[t];
      if (!entropy_gradients.empty()) entropy_gradients[t] = -options_.entropy_coef * entropy_weight;
    }
    if (options_.beta != 0) {
      const double d = s.ref_logprobs[t] - s.logprobs[t], factor = options_.use_bias_correction_kl ? ratios[t] : 1;
      const double kl = factor * (std::exp(d) - d - 1);
      kl_ += kl;
      token.loss += options_.beta * kl;
      token.direct += options_.beta * factor * (1 - std::exp(d));
      if (options_.use_bias_correction_kl) token.through_ratio += options_.beta * kl;
    }
    loss_ += weight * token.loss;
    gradients[t] = weight * (token.direct + (by_sequence ? 0 : token.through_ratio));
    through_shared_ratio += weight * token.through_ratio;
  }
  if (by_sequence)
    for (double& gradient : gradients) gradient += through_shared_ratio / static_cast<double>(n);
}

void PolicyLoss::count(const PolicySequence& s, std::span<const double> ratios) {
  const bool by_sequence = options_.importance_sampling_level == ImportanceLevel::sequence;
  const size_t n = by_sequence ? 1 : s.masked ? 0 : ratios.size();  // a sequence's one ratio counts, masked or not
  double low = 0, high = 0;
  for (size_t t = 0; t < n; ++t) {
    const double ratio = s.masked ? 1 : ratios[t];
    const double capped = options_.delta ? std::min(ratio, *options_.delta) : ratio;
    low += capped < 1 - options_.epsilon && s.advantage < 0;
    high += capped > 1 + options_.epsilon_high && s.advantage > 0;
    cispo_ += ratio > options_.epsilon_high && s.advantage > 0;
  }
  low_ += low;
  high_ += high;
  if (n == 0) return;
  low_min_ = std::min(low_min_, low / static_cast<double>(n));
  high_max_ = std::max(high_max_, high / static_cast<double>(n));
}

Metrics PolicyLoss::metrics() const {
  const bool by_sequence = options_.importance_sampling_level == ImportanceLevel::sequence;
  const double ratios = at_least_one(by_sequence ? completions_ : tokens_);
  Metrics metrics;
  if (options_.beta != 0) metrics.emplace_back("kl", kl_ / at_least_one(tokens_));
  if (clips(options_.loss_type)) {
    metrics.emplace_back("clip_ratio/low_mean", low_ / ratios);
    metrics.emplace_back("clip_ratio/high_mean", high_ / ratios);
    metrics.emplace_back("clip_ratio/region_mean", (low_ + high_) / ratios);
    metrics.emplace_back("clip_ratio/low_min", std::isfinite(low_min_) ? low_min_ : 0);
    metrics.emplace_back("clip_ratio/high_max", std::isfinite(high_max_) ? high_max_ : 0);
  } else if (options_.loss_type == PolicyLossType::cispo) {
    metrics.emplace_back("cispo_clip_ratio", cispo_ / ratios);
  } else if (options_.loss_type == PolicyLossType::vespo) {
    metrics.emplace_back("vespo/phi_seq_mean", phi_ / at_least_one(completions_));
  }
  if (options_.entropy_coef != 0) {
    metrics.emplace_back("policy_loss", loss_);
    metrics.emplace_back("entropy_coef", options_.entropy_coef);
  }
  return metrics;
}

}  // namespace lathe::train
