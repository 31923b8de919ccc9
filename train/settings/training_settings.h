// How a run optimises, what memory it may spend, and what it records: what the trainer reads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "train/settings/field.h"

namespace lathe::train {

enum class OptimizerKind { adamw, adamw_8bit, sgd, lion };
// By transformers' names: adamw_torch, adamw_torch_fused, adamw_8bit, adamw_bnb_8bit, sgd, lion_32bit, and lion.
std::optional<OptimizerKind> parse_optimizer(std::string_view name);

struct TrainingSettings {
  // Optimisation. The rows of a step are per_device_train_batch_size × gradient_accumulation_steps × world_size: only
  // the product shapes the result, and world_size the order of its sums.
  bool shuffle = true;
  std::optional<double> learning_rate;  // left open: the method's default
  std::string lr_scheduler_type = "linear";
  int64_t warmup_steps = 0;
  double warmup_ratio = 0.0;  // of all steps, where warmup_steps is 0
  double num_train_epochs = 3.0;
  int64_t max_steps = -1;  // above 0: overrides num_train_epochs
  int64_t per_device_train_batch_size = 8;
  int64_t gradient_accumulation_steps = 1;
  int64_t world_size = 1;             // ranks that share a step, each with as many rows (train/data_parallel.h)
  double max_grad_norm = 1.0;         // 0: no clipping
  std::string optim = "adamw_torch";  // parse_optimizer
  double weight_decay = 0.0;          // biases and norms (every vector) excluded
  double adam_beta1 = 0.9, adam_beta2 = 0.999, adam_epsilon = 1e-8;
  int64_t seed = 42;

  // Memory. None of these changes a bit of the result.
  std::optional<bool> gradient_checkpointing;  // left open: on where the weights are codes (load_in_4bit, load_in_8bit)
  int64_t max_tokens_per_forward = 2048;       // a micro-batch above it is cut between sequences; 0: never

  // Time. It does not change a bit either.
  bool cuda_graphs = true;  // train/step_graphs.h, where steps can be replayed: SftObjective says when

  // Records. Steps are optimiser steps; 0 means never, but for eval_steps, where it means at the end of each epoch.
  std::string output_dir;
  int64_t logging_steps = 10;
  int64_t eval_steps = 0;
  int64_t save_steps = 500;
  int64_t save_total_limit = 0;  // checkpoints kept; 0: all
  bool resume = false;
  std::string resume_from_checkpoint;  // this checkpoint instead of the newest
  bool overwrite_output_dir = false;
  bool dry_run = false;

  bool checkpoints_layers() const { return gradient_checkpointing.value_or(false); }
  OptimizerKind optimizer() const { return parse_optimizer(optim).value(); }
  int64_t rows_per_step() const { return per_device_train_batch_size * gradient_accumulation_steps * world_size; }
};

// `default_rate` completes the help of learning_rate: "2e-4 for adapters, 2e-5 for whole models".
Fields training_fields(TrainingSettings& settings, const std::string& default_rate);
void check_training(const TrainingSettings& settings, Complaints& wrong);

}  // namespace lathe::train
