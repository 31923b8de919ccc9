#include "train/dpo/preference_loss.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

namespace lathe::train {
namespace {

constexpr std::array<std::pair<std::string_view, PreferenceLoss>, 15> losses = {
    {{"sigmoid", PreferenceLoss::sigmoid},
     {"hinge", PreferenceLoss::hinge},
     {"ipo", PreferenceLoss::ipo},
     {"exo_pair", PreferenceLoss::exo_pair},
     {"nca_pair", PreferenceLoss::nca_pair},
     {"robust", PreferenceLoss::robust},
     {"bco_pair", PreferenceLoss::bco_pair},
     {"sppo_hard", PreferenceLoss::sppo_hard},
     {"aot", PreferenceLoss::aot},
     {"aot_unpaired", PreferenceLoss::aot_unpaired},
     {"apo_zero", PreferenceLoss::apo_zero},
     {"apo_down", PreferenceLoss::apo_down},
     {"discopop", PreferenceLoss::discopop},
     {"sft", PreferenceLoss::sft},
     {"sigmoid_norm", PreferenceLoss::sigmoid_norm}}};

constexpr std::array<std::pair<std::string_view, FDivergence>, 4> divergences = {
    {{"reverse_kl", FDivergence::reverse_kl},
     {"forward_kl", FDivergence::forward_kl},
     {"js_divergence", FDivergence::js_divergence},
     {"alpha_divergence", FDivergence::alpha_divergence}}};

template <class Names>
auto named(const Names& names, std::string_view name) -> std::optional<decltype(names[0].second)> {
  for (const auto& [own, value] : names)
    if (own == name) return value;
  return {};
}

double sigmoid(double x) {
  const double small = std::exp(-std::abs(x));
  return (x >= 0 ? 1 : small) / (1 + small);
}
double sigmoid_slope(double x) { return sigmoid(x) * sigmoid(-x); }
double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

// A function's value and slope at a point.
struct At {
  double value = 0, slope = 0;
};

At score_of(double log_ratio, const PreferenceLossOptions& options) {
  constexpr double largest_exponent = 80;
  switch (options.f_divergence) {
    case FDivergence::reverse_kl: break;
    case FDivergence::forward_kl: return {1 - std::exp(-log_ratio), std::exp(-log_ratio)};
    case FDivergence::js_divergence: return {std::log(2.0) + log_sigmoid(log_ratio), sigmoid(-log_ratio)};
    case FDivergence::alpha_divergence: {
      const double less_one = options.f_alpha_divergence_coef - 1, exponent = less_one * log_ratio;
      if (std::abs(less_one) < 1e-6) break;  // the limit is reverse_kl
      if (exponent > largest_exponent) return {(std::exp(largest_exponent) - 1) / less_one, 0};
      return {(std::exp(exponent) - 1) / less_one, std::exp(exponent)};
    }
  }
  return {log_ratio, 1};
}

// −logσ(x), from labels of which a share is wrong.
At smoothed(double x, double smoothing) {
  return {-(1 - smoothing) * log_sigmoid(x) - smoothing * log_sigmoid(-x),
          -(1 - smoothing) * sigmoid(-x) + smoothing * sigmoid(x)};
}

At exo(double x, double smoothing) {
  const double chosen = sigmoid(x), rejected = sigmoid(-x);
  const double of_chosen = log_sigmoid(x) - std::log1p(-smoothing);
  const double of_rejected = log_sigmoid(-x) - std::log(smoothing);
  return {chosen * of_chosen + rejected * of_rejected, chosen * rejected * (of_chosen - of_rejected)};
}

At robust(double x, double smoothing) {
  const double scale = 1 / (1 - 2 * smoothing);
  return {scale * (-(1 - smoothing) * log_sigmoid(x) + smoothing * log_sigmoid(-x)),
          scale * (-(1 - smoothing) * sigmoid(-x) - smoothing * sigmoid(x))};
}

At discopop(double x, double tau) {
  const double mix = sigmoid(x / tau), mix_slope = sigmoid_slope(x / tau) / tau;
  const double logistic = -log_sigmoid(x), exponential = std::exp(-x);
  return {(1 - mix) * logistic + mix * exponential,
          mix_slope * (exponential - logistic) - (1 - mix) * sigmoid(-x) - mix * exponential};
}

struct PairLoss {
  double loss = 0;
  PairGradient gradient;
};

// Of the losses that look at one pair alone.
PairLoss loss_of(PreferenceLoss kind, const PreferencePair& pair, const PreferenceLossOptions& options) {
  const double beta = options.beta, a = pair.chosen_logratio(), b = pair.rejected_logratio();
  const At chosen = score_of(a, options), rejected = score_of(b, options);
  const double x = beta * (chosen.value - rejected.value);
  const double chosen_tokens = static_cast<double>(std::max<int64_t>(1, pair.chosen_tokens));
  const double rejected_tokens = static_cast<double>(std::max<int64_t>(1, pair.rejected_tokens));
  const double mean_difference = chosen.value / chosen_tokens - rejected.value / rejected_tokens;
  const auto of_x = [&](const At& f) {
    return PairLoss{f.value, {f.slope * beta * chosen.slope, -f.slope * beta * rejected.slope}};
  };
  const auto of_means = [&](const At& f) {
    return PairLoss{f.value, {f.slope * chosen.slope / chosen_tokens, -f.slope * rejected.slope / rejected_tokens}};
  };
  switch (kind) {
    case PreferenceLoss::sigmoid: return of_x(smoothed(x, 0));
    case PreferenceLoss::hinge: return of_x(x < 1 ? At{1 - x, -1} : std::isnan(x) ? At{x, x} : At{});
    case PreferenceLoss::exo_pair: return of_x(exo(x, options.label_smoothing));
    case PreferenceLoss::robust: return of_x(robust(x, options.label_smoothing));
    case PreferenceLoss::discopop: return of_x(discopop(x, options.discopop_tau));
    case PreferenceLoss::ipo: {
      const double error = mean_difference - 1 / (2 * beta);
      return of_means({error * error, 2 * error});
    }
    case PreferenceLoss::sigmoid_norm: {
      const At f = smoothed(beta * mean_difference, 0);
      return of_means({f.value, beta * f.slope});
    }
    case PreferenceLoss::nca_pair:
      return {-log_sigmoid(beta * a) - 0.5 * log_sigmoid(-beta * a) - 0.5 * log_sigmoid(-beta * b),
              {beta * (0.5 * sigmoid(beta * a) - sigmoid(-beta * a)), beta * 0.5 * sigmoid(beta * b)}};
    case PreferenceLoss::bco_pair:
      return {-log_sigmoid(beta * a) - log_sigmoid(-beta * b), {-beta * sigmoid(-beta * a), beta * sigmoid(beta * b)}};
    case PreferenceLoss::sppo_hard: {
      const double won = a - 0.5 / beta, lost = b + 0.5 / beta;
      return {won * won + lost * lost, {2 * won, 2 * lost}};
    }
    case PreferenceLoss::apo_zero:
      return {1 - sigmoid(beta * a) + sigmoid(beta * b),
              {-beta * sigmoid_slope(beta * a), beta * sigmoid_slope(beta * b)}};
    case PreferenceLoss::apo_down: {
      const double of_difference = sigmoid_slope(beta * (a - b));
      return {sigmoid(beta * a) + 1 - sigmoid(beta * (a - b)),
              {beta * (sigmoid_slope(beta * a) - of_difference), beta * of_difference}};
    }
    case PreferenceLoss::sft:
    case PreferenceLoss::aot:
    case PreferenceLoss::aot_unpaired: break;
  }
  return {};
}

// Indices by ascending value; of equal ones the first comes first.
std::vector<size_t> order_of(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return values[i] < values[j]; });
  return order;
}

template <class Value>
std::vector<double> values_of(std::span<const PreferencePair> pairs, Value value) {
  std::vector<double> values;
  for (const PreferencePair& pair : pairs) values.push_back(value(pair));
  return values;
}

// Adds scale · the pairs' losses and gradients; returns the former.
double add_sorted(PreferenceLoss kind, std::span<const PreferencePair> pairs, double scale,
                  const PreferenceLossOptions& options, std::span<PairGradient> gradients) {
  const bool paired = kind == PreferenceLoss::aot;
  const std::vector<double> upper = values_of(
      pairs, [&](const PreferencePair& p) { return paired ? p.chosen_logps - p.rejected_logps : p.chosen_logratio(); });
  const std::vector<double> lower = values_of(pairs, [&](const PreferencePair& p) {
    return paired ? p.ref_chosen_logps - p.ref_rejected_logps : p.rejected_logratio();
  });
  const std::vector<size_t> upper_order = order_of(upper), lower_order = order_of(lower);
  double loss = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const At f = smoothed(options.beta * (upper[upper_order[i]] - lower[lower_order[i]]), options.label_smoothing);
    const double gradient = scale * options.beta * f.slope;
    loss += scale * f.value;
    gradients[upper_order[i]].chosen += gradient;
    gradients[paired ? upper_order[i] : lower_order[i]].rejected -= gradient;
  }
  return loss;
}

}  // namespace

std::optional<PreferenceLoss> parse_preference_loss(std::string_view name) { return named(losses, name); }
std::optional<FDivergence> parse_f_divergence(std::string_view name) { return named(divergences, name); }

std::string preference_loss_names() {
  std::string names;
  for (const auto& [name, loss] : losses) names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

bool takes_f_divergence(PreferenceLoss loss) {
  switch (loss) {
    case PreferenceLoss::sigmoid:
    case PreferenceLoss::sigmoid_norm:
    case PreferenceLoss::hinge:
    case PreferenceLoss::ipo:
    case PreferenceLoss::exo_pair:
    case PreferenceLoss::robust:
    case PreferenceLoss::discopop:
    case PreferenceLoss::sft: return true;
    default: return false;
  }
}

bool takes_label_smoothing(PreferenceLoss loss) {
  return loss == PreferenceLoss::robust || loss == PreferenceLoss::exo_pair || compares_pairs(loss);
}

bool compares_pairs(PreferenceLoss loss) { return loss == PreferenceLoss::aot || loss == PreferenceLoss::aot_unpaired; }

bool PreferenceLossOptions::compares_pairs() const {
  return std::any_of(losses.begin(), losses.end(),
                     [](const WeightedLoss& weighted) { return train::compares_pairs(weighted.loss); });
}

double preference_loss(std::span<const PreferencePair> pairs, const StepPairs& step,
                       const PreferenceLossOptions& options, std::span<PairGradient> gradients) {
  std::fill(gradients.begin(), gradients.end(), PairGradient{});
  double total = 0;
  for (const auto& [kind, weight] : options.losses) {
    const double scale = weight / static_cast<double>(step.pairs);
    if (compares_pairs(kind)) {
      total += add_sorted(kind, pairs, scale, options, gradients);
      continue;
    }
    const double token_scale = weight / static_cast<double>(std::max<int64_t>(1, step.chosen_tokens));
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (kind == PreferenceLoss::sft) {
        total -= token_scale * (options.ld_alpha ? pairs[i].chosen_unweighted_logps : pairs[i].chosen_logps);
        (options.ld_alpha ? gradients[i].chosen_unweighted : gradients[i].chosen) -= token_scale;
        continue;
      }
      const PairLoss pair = loss_of(kind, pairs[i], options);
      const double own_scale = options.use_weighting ? scale * pairs[i].weight : scale;
      total += own_scale * pair.loss;
      gradients[i].chosen += own_scale * pair.gradient.chosen;
      gradients[i].rejected += own_scale * pair.gradient.rejected;
    }
  }
  return total;
}

}  // namespace lathe::train
