#include "train/settings/training_settings.h"

#include <cmath>

#include "train/learning_rate_schedule.h"

namespace lathe::train {
namespace {

Fields optimisation_fields(TrainingSettings& s, const std::string& default_rate) {
  constexpr auto group = Group::optimisation;
  constexpr auto result = Shapes::result;
  constexpr auto run = Shapes::run;
  return {
      {"learning_rate", group, "peak rate (default: " + default_rate + ")", result, &s.learning_rate},
      {"lr_scheduler_type", group, "linear, cosine, constant or constant_with_warmup", result, &s.lr_scheduler_type},
      {"warmup_steps", group, "steps over which the rate rises from 0", result, &s.warmup_steps},
      {"warmup_ratio", group, "the same as a share of all steps, where warmup_steps is 0", result, &s.warmup_ratio},
      {"num_train_epochs", group, "passes over the rows", result, &s.num_train_epochs},
      {"max_steps", group, "optimiser steps; above 0 it overrides num_train_epochs", result, &s.max_steps},
      {"per_device_train_batch_size", group, "rows of a micro-batch", run, &s.per_device_train_batch_size},
      {"gradient_accumulation_steps", group, "micro-batches of a step (8 × 1 and 1 × 8 give the same bits)", run,
       &s.gradient_accumulation_steps},
      {"world_size", group,
       "ranks that share each step, every one with so many rows: the processes that mpirun starts (the default), or this "
       "one doing the work of all, to the same bits",
       run, &s.world_size},
      {"max_grad_norm", group, "gradients are scaled down to this norm (0: never)", result, &s.max_grad_norm},
      {"optim", group,
       "adamw_torch; adamw_8bit: AdamW's two moments in a byte each (tensors under 4096 elements stay f32); lion_32bit: "
       "one moment, steps of the learning rate's size (adam_beta1 and adam_beta2 are its betas); sgd: none",
       result, &s.optim},
      {"weight_decay", group, "the optimiser's, norms and biases excluded", result, &s.weight_decay},
      {"adam_beta1", group, "AdamW's decay of the mean", result, &s.adam_beta1},
      {"adam_beta2", group, "AdamW's decay of the mean square", result, &s.adam_beta2},
      {"adam_epsilon", group, "AdamW's floor under the root", result, &s.adam_epsilon},
      {"seed", group, "of the initial adapter, the order of rows and dropout", result, &s.seed},
  };
}

Fields record_fields(TrainingSettings& s) {
  constexpr auto group = Group::records;
  constexpr auto run = Shapes::run;
  constexpr auto call = Shapes::call;
  return {
      {"output_dir", group, "where the adapter, metrics, report and checkpoints go", run, &s.output_dir},
      {"logging_steps", group, "steps between lines of metrics.jsonl", run, &s.logging_steps},
      {"eval_steps", group, "steps between evaluations (0: at the end of each epoch)", run, &s.eval_steps},
      {"save_steps", group, "steps between checkpoints (0: only the last)", run, &s.save_steps},
      {"save_total_limit", group, "checkpoints kept, newest first (0: all)", run, &s.save_total_limit},
      {"resume", group, "go on from the newest whole checkpoint in output_dir, if there is one", call, &s.resume},
      {"resume_from_checkpoint", group, "go on from this checkpoint directory", call, &s.resume_from_checkpoint},
      {"overwrite_output_dir", group, "delete an earlier run's checkpoints and metrics first", call,
       &s.overwrite_output_dir},
      {"dry_run", group, "print the plan and the memory estimate, then stop", call, &s.dry_run},
  };
}

}  // namespace

std::optional<OptimizerKind> parse_optimizer(std::string_view name) {
  if (one_of(name, {"adamw_torch", "adamw_torch_fused"})) return OptimizerKind::adamw;
  if (one_of(name, {"adamw_8bit", "adamw_bnb_8bit"})) return OptimizerKind::adamw_8bit;
  if (one_of(name, {"lion_32bit", "lion"})) return OptimizerKind::lion;
  if (name == "sgd") return OptimizerKind::sgd;
  return std::nullopt;
}

Fields training_fields(TrainingSettings& s, const std::string& default_rate) {
  const Fields rows = {
      {"shuffle", Group::model_and_data, "another order of the rows in every epoch", Shapes::result, &s.shuffle}};
  const Fields memory = {
      {"gradient_checkpointing", Group::memory,
       "compute a layer's activations again in the backward: less memory, a third more time, the same bits (default: "
       "on with load_in_4bit or load_in_8bit, else off; TRL has it on)",
       Shapes::run, &s.gradient_checkpointing},
      {"max_tokens_per_forward", Group::memory,
       "cut micro-batches between rows above this many tokens: less memory, the same bits (0: never)", Shapes::run,
       &s.max_tokens_per_forward},
      {"cuda_graphs", Group::optimisation,
       "replay steps of equal shape (sequences, labelled tokens) as a CUDA graph: the same bits, less work for the host "
       "(on a device; not of several ranks and experts that are trained or adapted)",
       Shapes::run, &s.cuda_graphs},
  };
  return composed({rows, optimisation_fields(s, default_rate), memory, record_fields(s)});
}

void check_training(const TrainingSettings& s, Complaints& wrong) {
  if (s.learning_rate) wrong.require_not_negative("learning_rate", *s.learning_rate);
  wrong.require(parse_schedule(s.lr_scheduler_type).has_value(), "lr_scheduler_type",
                "'" + s.lr_scheduler_type + "' is none of linear, cosine, constant, constant_with_warmup");
  wrong.require_not_negative("warmup_steps", static_cast<double>(s.warmup_steps));
  wrong.require(s.warmup_ratio >= 0 && s.warmup_ratio <= 1, "warmup_ratio", "must be from 0 to 1");
  wrong.require(s.max_steps > 0 || (s.num_train_epochs > 0 && std::isfinite(s.num_train_epochs)), "num_train_epochs",
                "must be above 0 where max_steps is not given");
  wrong.require_positive("per_device_train_batch_size", s.per_device_train_batch_size);
  wrong.require_positive("gradient_accumulation_steps", s.gradient_accumulation_steps);
  wrong.require(s.world_size >= 1 && s.world_size <= 4096, "world_size", "must be from 1 to 4096");
  wrong.require(s.rows_per_step() <= 65536, "gradient_accumulation_steps", "a step may have at most 65536 rows");
  wrong.require_not_negative("max_grad_norm", s.max_grad_norm);
  wrong.require(parse_optimizer(s.optim).has_value(), "optim",
                "'" + s.optim + "' is none of adamw_torch, adamw_8bit, sgd, lion_32bit");
  wrong.require_not_negative("weight_decay", s.weight_decay);
  wrong.require_below_one("adam_beta1", s.adam_beta1);
  wrong.require_below_one("adam_beta2", s.adam_beta2);
  wrong.require_not_negative("adam_epsilon", s.adam_epsilon);
  wrong.require_not_negative("seed", static_cast<double>(s.seed));
  wrong.require_not_negative("max_tokens_per_forward", static_cast<double>(s.max_tokens_per_forward));
  wrong.require(!s.output_dir.empty() || s.dry_run, "output_dir", "is missing: the folder to write to");
  wrong.require_positive("logging_steps", s.logging_steps);
  wrong.require_not_negative("eval_steps", static_cast<double>(s.eval_steps));
  wrong.require_not_negative("save_steps", static_cast<double>(s.save_steps));
  wrong.require_not_negative("save_total_limit", static_cast<double>(s.save_total_limit));
  wrong.require(!(s.resume && s.overwrite_output_dir), "overwrite_output_dir", "cannot go with resume: choose one");
}

}  // namespace lathe::train
