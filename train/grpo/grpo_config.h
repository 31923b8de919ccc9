// The settings of group relative policy optimisation; names and defaults are those of TRL 1.16's GRPOConfig.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "train/grpo/policy_loss.h"
#include "train/grpo/rewards/reward_settings.h"
#include "train/settings/reference_settings.h"
#include "train/settings/run_config.h"

namespace lathe::train {

struct GrpoSettings {
  // Rollouts. A generation batch is generation_batch_size completions, num_generations to a prompt;
  // steps_per_generation is it in micro-batches. Left open (0): what one optimiser step learns from.
  int64_t num_generations = 8;
  int64_t num_generations_eval = 0;  // 0: num_generations
  int64_t max_completion_length = 512;
  int64_t generation_batch_size = 0, steps_per_generation = 0;
  double temperature = 1.0, top_p = 1.0, min_p = 0.0;
  int64_t top_k = 0;
  int64_t kv_cache_tokens = 0;  // 0: for what is generated at once, at most 64 completions
  bool log_completions = false;
  bool streaming = false;           // prompts come once, in order
  int64_t max_prompt_length = 512;  // tokens of a streamed prompt

  // The loss.
  std::string loss_type = "dapo";
  int64_t num_iterations = 1;
  double epsilon = 0.2;
  std::optional<double> epsilon_high;  // left open: epsilon
  std::optional<double> delta;
  double beta = 0.0;
  bool use_bias_correction_kl = true;
  std::string importance_sampling_level = "token";
  std::string scale_rewards = "group";
  std::string multi_objective_aggregation = "sum_then_normalize";
  double top_entropy_quantile = 1.0, entropy_coef = 0.0;
  std::optional<double> off_policy_mask_threshold;
  bool mask_truncated_completions = false;
  double sapo_temperature_pos = 1.0, sapo_temperature_neg = 1.05;
  double vespo_k_pos = 2.0, vespo_lambda_pos = 3.0, vespo_k_neg = 3.0, vespo_lambda_neg = 2.0;
};

struct GrpoConfig : RunConfig, DataSettings, GrpoSettings, ReferenceSettings, RewardSettings {
  static constexpr const char *method = "GRPO", *command = "grpo";
  // With dropout the policy that learns is not the one that was sampled from; TRL has 0.05 here.
  GrpoConfig() { lora_dropout = 0; }
  double resolved_learning_rate() const { return learning_rate.value_or(1e-6); }
  void resolve();

  int64_t completions_per_generation() const;
  int64_t prompts_per_generation() const { return completions_per_generation() / num_generations; }
  // Optimiser steps that share a generation batch out among them.
  int64_t updates_per_generation() const { return completions_per_generation() / rows_per_step(); }
};

Fields fields_of(GrpoConfig& config);
void check(const GrpoConfig& config, Complaints& wrong);

PolicyLossOptions policy_loss_options(const GrpoConfig& config);

}  // namespace lathe::train
