#include "train/grpo/grpo_config.h"

#include <algorithm>
#include <cmath>

namespace lathe::train {
namespace {

Fields rollout_fields(GrpoSettings& s) {
  constexpr auto group = Group::model_and_data;
  constexpr auto result = Shapes::result;
  return {
      {"num_generations", group, "completions of each prompt, which are compared with each other", result,
       &s.num_generations},
      {"num_generations_eval", group, "completions of each prompt of eval_dataset (0: num_generations)", result,
       &s.num_generations_eval},
      {"max_completion_length", group, "tokens of a completion, its end included", result, &s.max_completion_length},
      {"temperature", group, "of sampling; the log-probabilities that are learnt from are taken at it", result,
       &s.temperature},
      {"top_p", group, "draw from the likeliest tokens that reach this share (1: from all)", result, &s.top_p},
      {"top_k", group, "draw from so many likeliest tokens (0: from all)", result, &s.top_k},
      {"min_p", group, "draw from tokens at least this share as likely as the likeliest", result, &s.min_p},
      {"streaming", Group::model_and_data,
       "read prompts in their order as steps ask for them, from a pipe, - or a file larger than memory (needs "
       "max_steps)",
       result, &s.streaming},
      {"max_prompt_length", Group::model_and_data,
       "tokens that a streamed prompt may have: room is made for them before any has come; a longer one is an error",
       Shapes::run, &s.max_prompt_length},
      {"generation_batch_size", group,
       "completions generated at once (default: steps_per_generation micro-batches of them)", result,
       &s.generation_batch_size},
      {"steps_per_generation", group, "the same in micro-batches (default: gradient_accumulation_steps)", Shapes::run,
       &s.steps_per_generation},
  };
}

Fields loss_fields(GrpoSettings& s) {
  constexpr auto group = Group::optimisation;
  constexpr auto result = Shapes::result;
  return {
      {"loss_type", group, "grpo, bnpo, dr_grpo, dapo, cispo, sapo, luspo or vespo", result, &s.loss_type},
      {"num_iterations", group, "times that each completion is learnt from", result, &s.num_iterations},
      {"epsilon", group, "the probability ratio is clipped at 1 - epsilon", result, &s.epsilon},
      {"epsilon_high", group, "and at 1 + epsilon_high (default: epsilon); cispo caps the ratio at it", result,
       &s.epsilon_high},
      {"delta", group, "caps the ratio of the unclipped side, too (default: not)", result, &s.delta},
      {"beta", group,
       "weight of the KL divergence from the model without the new adapter, or with use_peft false from a second copy of "
       "it in memory (0: none)",
       result, &s.beta},
      {"use_bias_correction_kl", group, "weigh the KL divergence by the probability ratio", result,
       &s.use_bias_correction_kl},
      {"importance_sampling_level", group, "token, or sequence: one ratio for a completion", result,
       &s.importance_sampling_level},
      {"scale_rewards", group, "divide advantages by the deviation of the group, the batch, or none", result,
       &s.scale_rewards},
      {"multi_objective_aggregation", group,
       "of several rewards: sum_then_normalize, or normalize_then_sum: each is compared within its group by itself",
       result, &s.multi_objective_aggregation},
      {"top_entropy_quantile", group, "learn from this share of a step's tokens, those of the highest entropy", result,
       &s.top_entropy_quantile},
      {"entropy_coef", group, "reward for entropy: the loss less this much times the mean entropy of the tokens",
       result, &s.entropy_coef},
      {"off_policy_mask_threshold", group,
       "learn nothing from completions below their group's mean that have become less likely by more than so many nats "
       "a token (default: from all)",
       result, &s.off_policy_mask_threshold},
      {"mask_truncated_completions", group, "learn nothing from completions cut at max_completion_length", result,
       &s.mask_truncated_completions},
      {"sapo_temperature_pos", group, "sapo's, for advantages above 0", result, &s.sapo_temperature_pos},
      {"sapo_temperature_neg", group, "sapo's, for the others", result, &s.sapo_temperature_neg},
      {"vespo_k_pos", group, "vespo's exponent, for advantages of 0 or more", result, &s.vespo_k_pos},
      {"vespo_lambda_pos", group, "vespo's decay, for advantages of 0 or more", result, &s.vespo_lambda_pos},
      {"vespo_k_neg", group, "vespo's exponent, for the others", result, &s.vespo_k_neg},
      {"vespo_lambda_neg", group, "vespo's decay, for the others", result, &s.vespo_lambda_neg},
  };
}

Fields cache_and_record_fields(GrpoSettings& s) {
  return {
      {"kv_cache_tokens", Group::memory,
       "tokens whose keys and values are held while generating (0: of 64 completions at once, or of all where they are "
       "fewer); the same bits whatever it is",
       Shapes::run, &s.kv_cache_tokens},
      {"log_completions", Group::records, "write every completion with its rewards to completions/ in output_dir",
       Shapes::run, &s.log_completions},
  };
}

// A row there is a prompt, and what a step learns from are completions.
Fields training_fields_of(GrpoConfig& c) {
  Fields fields = training_fields(c, "1e-6; adapters usually want 1e-5 or more");
  for (Field& field : fields) {
    if (field.name == "shuffle") field.help = "another order of the prompts in every epoch";
    if (field.name == "num_train_epochs") field.help = "passes over the prompts";
    if (field.name == "per_device_train_batch_size") field.help = "completions of a micro-batch";
    if (field.name == "max_tokens_per_forward")
      field.help =
          "cut micro-batches between completions above this many tokens: less memory, the same bits (0: never)";
  }
  return fields;
}

void check_batches(const GrpoConfig& c, Complaints& wrong) {
  wrong.require(c.num_generations >= 2, "num_generations",
                "must be at least 2: completions of a prompt are compared with each other");
  wrong.require(c.generation_batch_size == 0 || c.steps_per_generation == 0, "steps_per_generation",
                "and generation_batch_size say the same: give one");
  wrong.require_not_negative("generation_batch_size", static_cast<double>(c.generation_batch_size));
  wrong.require_not_negative("steps_per_generation", static_cast<double>(c.steps_per_generation));
  wrong.require_positive("num_iterations", c.num_iterations);
  if (c.num_generations < 2 || c.rows_per_step() < 1) return;
  const int64_t completions = c.completions_per_generation();
  const std::string found = std::to_string(completions) + " (per_device_train_batch_size " +
                            std::to_string(c.per_device_train_batch_size) +
                            (c.world_size > 1 ? ", world_size " + std::to_string(c.world_size) : "") + ")";
  wrong.require(completions >= 1 && completions <= 65536, "generation_batch_size",
                "must be from 1 to 65536, found " + found);
  wrong.require(completions % c.num_generations == 0, "generation_batch_size",
                "must hold whole groups of num_generations " + std::to_string(c.num_generations) + ", found " + found);
  wrong.require(completions % c.rows_per_step() == 0, "generation_batch_size",
                "must be a multiple of the " + std::to_string(c.rows_per_step()) +
                    " completions of an optimiser step (per_device_train_batch_size × gradient_accumulation_steps" +
                    (c.world_size > 1 ? " × world_size" : "") + "), found " + found);
}

void check_sampling(const GrpoConfig& c, Complaints& wrong) {
  wrong.require(c.max_completion_length >= 1 && c.max_completion_length <= 262144, "max_completion_length",
                "must be from 1 to 262144, found " + std::to_string(c.max_completion_length));
  wrong.require(std::isfinite(c.temperature) && c.temperature >= 0.01, "temperature",
                "must be at least 0.01: completions that are all the same teach nothing");
  wrong.require(c.top_p > 0 && c.top_p <= 1, "top_p", "must be above 0 and at most 1");
  wrong.require(c.top_k >= 0 && c.top_k < 1 << 24, "top_k", "must be 0 (off) or more");
  wrong.require(c.min_p >= 0 && c.min_p <= 1, "min_p", "must be from 0 to 1");
  wrong.require(!c.streaming || c.max_steps > 0, "streaming",
                "needs max_steps: nobody knows how many prompts there are");
  wrong.require(c.max_prompt_length >= 1 && c.max_prompt_length <= 262144, "max_prompt_length",
                "must be from 1 to 262144, found " + std::to_string(c.max_prompt_length));
  wrong.require_not_negative("num_generations_eval", static_cast<double>(c.num_generations_eval));
  wrong.require_not_negative("kv_cache_tokens", static_cast<double>(c.kv_cache_tokens));
}

void check_loss(const GrpoConfig& c, Complaints& wrong) {
  wrong.require(parse_policy_loss(c.loss_type).has_value(), "loss_type",
                "'" + c.loss_type + "' is none of grpo, bnpo, dr_grpo, dapo, cispo, sapo, luspo, vespo");
  wrong.require(one_of(c.importance_sampling_level, {"token", "sequence"}), "importance_sampling_level",
                "'" + c.importance_sampling_level + "' is neither token nor sequence");
  wrong.require(parse_reward_scaling(c.scale_rewards).has_value(), "scale_rewards",
                "'" + c.scale_rewards + "' is none of group, batch, none");
  wrong.require(parse_reward_aggregation(c.multi_objective_aggregation).has_value(), "multi_objective_aggregation",
                "'" + c.multi_objective_aggregation + "' is neither sum_then_normalize nor normalize_then_sum");
  wrong.require(c.top_entropy_quantile >= 0 && c.top_entropy_quantile <= 1, "top_entropy_quantile",
                "must be from 0 to 1, found " + std::to_string(c.top_entropy_quantile));
  wrong.require(std::isfinite(c.entropy_coef), "entropy_coef", "must be a number");
  if (c.off_policy_mask_threshold)
    wrong.require(std::isfinite(*c.off_policy_mask_threshold), "off_policy_mask_threshold", "must be a number");
  wrong.require(c.epsilon >= 0 && c.epsilon <= 1, "epsilon", "must be from 0 to 1");
  if (c.epsilon_high) wrong.require_not_negative("epsilon_high", *c.epsilon_high);
  if (c.delta) {
    const bool clips = !one_of(c.loss_type, {"cispo", "sapo", "vespo"});
    wrong.require(clips, "delta", "has no use with loss_type " + c.loss_type + ", which does not clip");
    wrong.require(*c.delta > 1 + c.epsilon_high.value_or(c.epsilon), "delta",
                  "must be above 1 + epsilon_high, or it clips what that lets pass");
  }
  wrong.require_not_negative("beta", c.beta);
  check_reference(c, c.use_peft, wrong);
  wrong.require(!c.sync_ref_model || c.beta > 0, "sync_ref_model", "has no use with beta 0, which asks no reference");
  for (const auto& [name, value] : {std::pair("sapo_temperature_pos", c.sapo_temperature_pos),
                                    std::pair("sapo_temperature_neg", c.sapo_temperature_neg)})
    wrong.require(value > 0 && std::isfinite(value), name, "must be above 0");
  for (const auto& [name, value] :
       {std::pair("vespo_k_pos", c.vespo_k_pos), std::pair("vespo_lambda_pos", c.vespo_lambda_pos),
        std::pair("vespo_k_neg", c.vespo_k_neg), std::pair("vespo_lambda_neg", c.vespo_lambda_neg)})
    wrong.require_not_negative(name, value);
}

}  // namespace

int64_t GrpoConfig::completions_per_generation() const {
  if (generation_batch_size > 0) return generation_batch_size;
  return per_device_train_batch_size * world_size *
         (steps_per_generation > 0 ? steps_per_generation : gradient_accumulation_steps);
}

void GrpoConfig::resolve() {
  generation_batch_size = completions_per_generation();
  steps_per_generation = 0;
  shuffle = shuffle && !streaming;
  if (!epsilon_high) epsilon_high = epsilon;
  if (num_generations_eval == 0) num_generations_eval = num_generations;
}

Fields fields_of(GrpoConfig& c) {
  return composed({model_fields(c),
                   data_fields(c, "{\"prompt\": text or messages, other columns for the rewards}", "eval_reward"),
                   rollout_fields(c), reward_fields(c), adapter_fields(c), loss_fields(c), reference_fields(c),
                   training_fields_of(c), cache_and_record_fields(c)});
}

void check(const GrpoConfig& c, Complaints& wrong) {
  check_model(c, wrong);
  check_data(c, c.dry_run, wrong);
  check_batches(c, wrong);
  check_sampling(c, wrong);
  check_rewards(c, c.max_completion_length, wrong);
  check_adapter(c, wrong);
  check_loss(c, wrong);
  check_training(c, wrong);
}

PolicyLossOptions policy_loss_options(const GrpoConfig& c) {
  PolicyLossOptions options;
  options.loss_type = parse_policy_loss(c.loss_type).value();
  options.importance_sampling_level =
      c.importance_sampling_level == "sequence" ? ImportanceLevel::sequence : ImportanceLevel::token;
  options.epsilon = c.epsilon;
  options.epsilon_high = c.epsilon_high.value_or(c.epsilon);
  options.delta = c.delta;
  options.beta = c.beta;
  options.use_bias_correction_kl = c.use_bias_correction_kl;
  options.sapo_temperature_pos = c.sapo_temperature_pos;
  options.sapo_temperature_neg = c.sapo_temperature_neg;
  options.vespo_k_pos = c.vespo_k_pos;
  options.vespo_lambda_pos = c.vespo_lambda_pos;
  options.vespo_k_neg = c.vespo_k_neg;
  options.vespo_lambda_neg = c.vespo_lambda_neg;
  options.entropy_coef = c.entropy_coef;
  options.top_entropy_quantile = c.top_entropy_quantile;
  options.off_policy_mask_threshold = c.off_policy_mask_threshold;
  options.max_completion_length = c.max_completion_length;
  return options;
}

}  // namespace lathe::train
