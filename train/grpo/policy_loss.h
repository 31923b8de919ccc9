// The losses of group relative policy optimisation, in double: log-probabilities in, loss and gradient per token out.
// Formulas and names are those of TRL 1.16's GRPOTrainer. With l = log π of the sampled token, o = log π_old,
// d = log π_ref − l, A the completion's advantage:
//
//   ρ       exp(l − o), or at sequence level exp(mean over the completion's tokens of l − o), shared by its tokens
//   grpo, bnpo, dr_grpo, dapo, luspo   −min(min(ρ, delta) · A, clip(ρ, 1 − epsilon, 1 + epsilon_high) · A)
//   cispo   −sg(min(ρ, epsilon_high)) · A · l
//   sapo    −A · (4 / τ) · σ(τ · (ρ − 1)), τ = sapo_temperature_pos for A > 0, else sapo_temperature_neg
//   vespo   −sg(φ) · A · l, φ = exp(λ + k · log w − λ · w), w = exp(Σ (l − o)), (k, λ) by the sign of A
//
// times 0 where a threshold says that the token is not learnt from,
//
//   off_policy_mask_threshold   A < 0 and the mean of o − l over the completion above it (DeepSeek-V3.2)
//   top_entropy_quantile        the token's entropy below that of the quantile 1 − top_entropy_quantile of the step's
//                               (Wang et al. 2025)
//
//   KL      + beta · ρ · (exp(d) − d − 1); without ρ where use_bias_correction_kl is off
//
// summed over tokens with the weight of each:
//
//   grpo, sapo          1 / (the completion's tokens · completions)
//   bnpo                1 / tokens
//   dr_grpo             1 / (completions · max_completion_length)
//   dapo, cispo, vespo  updates_per_generation / tokens of the generation batch
//   luspo               1 / completions
//
// and − entropy_coef · the mean entropy of the step's tokens, of those above the threshold.
//
// Completions and tokens are those of one optimiser step, never of a micro-batch: how a step is cut changes nothing.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "train/objective.h"

namespace lathe::train {

enum class PolicyLossType { grpo, bnpo, dr_grpo, dapo, cispo, sapo, luspo, vespo };
std::optional<PolicyLossType> parse_policy_loss(std::string_view name);

enum class ImportanceLevel { token, sequence };

struct PolicyLossOptions {
  PolicyLossType loss_type = PolicyLossType::dapo;
  ImportanceLevel importance_sampling_level = ImportanceLevel::token;
  double epsilon = 0.2, epsilon_high = 0.2;
  std::optional<double> delta;
  double beta = 0;
  bool use_bias_correction_kl = true;
  double sapo_temperature_pos = 1.0, sapo_temperature_neg = 1.05;
  double vespo_k_pos = 2.0, vespo_lambda_pos = 3.0, vespo_k_neg = 3.0, vespo_lambda_neg = 2.0;
  double entropy_coef = 0;
  double top_entropy_quantile = 1;
  std::optional<double> off_policy_mask_threshold;
  int64_t max_completion_length = 512;
};

// The tokens that top_entropy_quantile leaves: those of at least this entropy.
struct EntropyFloor {
  double least = -std::numeric_limits<double>::infinity();
  int64_t tokens = 0;  // there are of these; 0: all of the step
};
// Of the entropies of all tokens of a step: torch.quantile's, interpolated between the two next to it.
EntropyFloor entropy_floor(std::vector<double> entropies, double top_entropy_quantile);

// What the sums are divided by. Masked completions count as completions, and none of their tokens.
struct PolicyBatchSize {
  int64_t completions = 0, tokens = 0;  // of the optimiser step
  int64_t generation_tokens = 0;        // of the generation batch that the step has a share of
  double updates_per_generation = 1;    // optimiser steps that share it out
  EntropyFloor entropy;                 // of top_entropy_quantile
};

struct PolicySequence {
  std::span<const double> logprobs, old_logprobs;
  std::span<const double> ref_logprobs;  // empty where beta is 0
  std::span<const double> entropies;     // empty where entropy_coef is 0 and top_entropy_quantile is 1
  double advantage = 0;
  bool masked = false;  // a truncated completion that is not learnt from
};

// The loss of one optimiser step, completion by completion in order.
class PolicyLoss {
 public:
  PolicyLoss(const PolicyLossOptions& options, const PolicyBatchSize& size) : options_(options), size_(size) {}

  // Adds a completion; gradients [tokens] become ∂loss/∂logprobs, entropy_gradients [tokens], where they are given,
  // ∂loss/∂entropies.
  void add(const PolicySequence& sequence, std::span<double> gradients, std::span<double> entropy_gradients = {});

  double loss() const { return loss_ - options_.entropy_coef * entropy_; }
  // By TRL's names: kl (where beta is not 0), clip_ratio/…, cispo_clip_ratio, vespo/phi_seq_mean; policy_loss and
  // entropy_coef where that is not 0.
  Metrics metrics() const;

 private:
  struct Token;
  Token token_loss(double logprob, double ratio, double advantage) const;
  double token_weight(int64_t tokens) const;
  double vespo_phi(double log_ratio_sum, double advantage) const;
  void count(const PolicySequence& sequence, std::span<const double> ratios);

  PolicyLossOptions options_;
  PolicyBatchSize size_;
  double loss_ = 0, kl_ = 0, phi_ = 0, entropy_ = 0;
  double low_ = 0, high_ = 0, cispo_ = 0;
  double low_min_ = std::numeric_limits<double>::infinity(), high_max_ = -std::numeric_limits<double>::infinity();
  int64_t tokens_ = 0, completions_ = 0;
};

}  // namespace lathe::train
