#include "train/grpo/policy_step.h"

#include <algorithm>
#include <cmath>

#include "train/row_order.h"

namespace lathe::train {
namespace {

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// Between the sampler's log-probabilities and the trainer's, before anything has been learnt.
struct SamplingDifference {
  double sum = 0, largest = 0, ratio_sum = 0;
  double least_ratio = std::numeric_limits<double>::infinity(), largest_ratio = 0;
  int64_t tokens = 0, completions = 0;

  void add(std::span<const double> trained, std::span<const double> sampled) {
    double log_ratio = 0;
    for (size_t t = 0; t < trained.size(); ++t) {
      const double difference = trained[t] - sampled[t];
      sum += std::abs(difference);
      largest = std::max(largest, std::abs(difference));
      log_ratio += difference;
    }
    const double ratio = std::exp(log_ratio);
    ratio_sum += ratio;
    least_ratio = std::min(least_ratio, ratio);
    largest_ratio = std::max(largest_ratio, ratio);
    tokens += static_cast<int64_t>(trained.size());
    ++completions;
  }
  void add_to(Metrics& metrics) const {
    if (completions == 0) return;
    metrics.emplace_back("sampling/sampling_logp_difference/mean", sum / static_cast<double>(tokens));
    metrics.emplace_back("sampling/sampling_logp_difference/max", largest);
    metrics.emplace_back("sampling/importance_sampling_ratio/min", least_ratio);
    metrics.emplace_back("sampling/importance_sampling_ratio/mean", ratio_sum / static_cast<double>(completions));
    metrics.emplace_back("sampling/importance_sampling_ratio/max", largest_ratio);
  }
};

}  // namespace

PolicyStep::PolicyStep(const GrpoConfig& config, const GenerationBatch& batch,
                       std::span<const ScoredRollout> completions, const TrainingSet& prompts)
    : config_(config),
      completions_(completions.begin(), completions.end()),
      size_{.completions = std::ssize(completions),
            .tokens = tokens_of(completions),
            .generation_tokens = tokens_of(batch.completions),
            .updates_per_generation = static_cast<double>(config.updates_per_generation()),
            .entropy = {}} {
  std::vector<int32_t> labels;
  for (const ScoredRollout& scored : completions_) {
    if (is_masked(scored)) continue;
    learnt_.push_back(&scored);
    prompts.append_sequence(prompts.sequences_of_row(scored.row).first, prompts_.emplace_back(), labels);
    bounds_.push_back(bounds_.back() + 2 * scored.rollout.ids.size());
  }
  for (size_t i = 0; i < learnt_.size(); ++i) sequences_.push_back({prompts_[i], learnt_[i]->rollout.ids});
  numbers_.resize(bounds_.back());
}

bool PolicyStep::is_masked(const ScoredRollout& completion) const {
  return config_.mask_truncated_completions && completion.rollout.truncated;
}

int64_t PolicyStep::tokens_of(std::span<const ScoredRollout> completions) const {
  int64_t tokens = 0;
  for (const ScoredRollout& scored : completions)
    if (!is_masked(scored)) tokens += static_cast<int64_t>(scored.rollout.ids.size());
  return tokens;
}

std::pair<size_t, size_t> PolicyStep::part_of(const DataParallel& parallel, std::pair<int64_t, int64_t> ranks) const {
  return part_of_ranks(sequences_.size(), ranks, parallel.world_size());
}

void PolicyStep::set(size_t sequence, const CompletionTokens& tokens) {
  const auto first = numbers_.begin() + static_cast<std::ptrdiff_t>(bounds_[sequence]);
  std::ranges::copy(tokens.entropies, std::ranges::copy(tokens.logprobs, first).out);
}

void PolicyStep::share(const DataParallel& parallel) {
  const auto [begin, end] = part_of(parallel, parallel.ranks());
  if (!numbers_.empty()) parallel.gather(numbers_, bounds_[begin], bounds_[end]);
}

std::span<const double> PolicyStep::logprobs(size_t sequence) const {
  return std::span(numbers_).subspan(bounds_[sequence], learnt_[sequence]->rollout.ids.size());
}

std::span<const double> PolicyStep::entropies(size_t sequence) const {
  const size_t tokens = learnt_[sequence]->rollout.ids.size();
  return std::span(numbers_).subspan(bounds_[sequence] + tokens, tokens);
}

void PolicyStep::set_entropy_floor() {
  std::vector<double> all;
  for (size_t i = 0; i < learnt_.size(); ++i) all.insert(all.end(), entropies(i).begin(), entropies(i).end());
  size_.entropy = entropy_floor(std::move(all), config_.top_entropy_quantile);
}

void PolicyStep::add_to(PolicyLoss& loss, size_t sequence, CompletionGradients gradients) const {
  const ScoredRollout& scored = *learnt_[sequence];
  const std::vector<double> old = doubles(scored.rollout.logprobs),
                            ref = scored.ref_logprobs ? doubles(*scored.ref_logprobs) : std::vector<double>();
  const bool entropies_count = config_.entropy_coef != 0 || config_.top_entropy_quantile < 1;
  loss.add({.logprobs = logprobs(sequence),
            .old_logprobs = old,
            .ref_logprobs = ref,
            .entropies = entropies_count ? entropies(sequence) : std::span<const double>(),
            .advantage = scored.advantage},
           gradients.logprobs, gradients.entropies);
}

double PolicyStep::gradients_of(size_t sequence, CompletionGradients gradients) const {
  PolicyLoss alone(policy_loss_options(config_), size_);
  add_to(alone, sequence, gradients);
  return alone.loss();
}

StepOutcome PolicyStep::outcome(bool is_first_of_draw) const {
  PolicyLoss loss(policy_loss_options(config_), size_);
  for (const ScoredRollout& scored : completions_)
    if (is_masked(scored))
      loss.add({.logprobs = {}, .old_logprobs = {}, .ref_logprobs = {}, .advantage = scored.advantage, .masked = true},
               {});
  SamplingDifference difference;
  double entropy = 0;
  for (size_t i = 0; i < learnt_.size(); ++i) {
    std::vector<double> unused(logprobs(i).size());
    add_to(loss, i, {unused, {}});
    difference.add(logprobs(i), doubles(learnt_[i]->rollout.logprobs));
    for (const double nats : entropies(i)) entropy += nats;
  }
  StepOutcome outcome;
  outcome.loss = loss.loss();
  outcome.metrics = loss.metrics();
  outcome.metrics.emplace_back("entropy", entropy / static_cast<double>(std::max<int64_t>(1, size_.tokens)));
  if (is_first_of_draw) difference.add_to(outcome.metrics);
  return outcome;
}

}  // namespace lathe::train
