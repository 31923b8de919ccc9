// The settings of a training run. Names and defaults are those of TRL, transformers and PEFT. A config is parsed once,
// checked whole (every error in one message), written to output_dir, and passed by const reference.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "nn/weights/peft.h"

namespace lathe::train {

// What every method (SFT; later DPO, GRPO) shares.
struct TrainingConfig {
  // Optimisation. The rows of a step are per_device_train_batch_size × gradient_accumulation_steps: only the product
  // shapes the result.
  std::optional<double> learning_rate;  // 2e-4 for adapters, 2e-5 for whole models
  int64_t per_device_train_batch_size = 8;
  int64_t gradient_accumulation_steps = 1;
  double num_train_epochs = 3.0;
  int64_t max_steps = -1;  // above 0: overrides num_train_epochs
  std::string lr_scheduler_type = "linear";
  int64_t warmup_steps = 0;
  double warmup_ratio = 0.0;          // of all steps, where warmup_steps is 0
  double max_grad_norm = 1.0;         // 0: no clipping
  std::string optim = "adamw_torch";  // or adamw_8bit; transformers' other names for the two are taken, too
  double adam_beta1 = 0.9, adam_beta2 = 0.999, adam_epsilon = 1e-8;
  double weight_decay = 0.0;  // biases and norms (every vector) excluded
  int64_t seed = 42;
  bool shuffle = true;

  // Memory. None of these changes a bit of the result.
  bool gradient_checkpointing = false;
  int64_t max_tokens_per_forward = 2048;  // a micro-batch above it is cut between sequences; 0: never

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

  bool moments_in_8_bits() const { return optim == "adamw_8bit" || optim == "adamw_bnb_8bit"; }
  int64_t rows_per_step() const { return per_device_train_batch_size * gradient_accumulation_steps; }
};

struct SftConfig : TrainingConfig {
  std::string model;
  std::string dtype = "auto";  // auto | float32 | bfloat16
  std::optional<bool> bf16;    // TRL's name: true is bfloat16, false is float32

  std::string dataset, eval_dataset;
  std::string dataset_text_field = "text";
  int64_t max_length = 1024;
  std::string too_long = "truncate";  // or error
  bool packing = false;
  std::string packing_strategy = "bfd";
  std::optional<bool> completion_only_loss;  // on where rows have a completion
  bool assistant_only_loss = false;

  bool use_peft = true;
  std::string adapter;  // a PEFT directory to train further; empty: a new one
  int64_t lora_r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0.05;
  bool use_rslora = false;
  std::string lora_target_modules = "all-linear";  // or names with commas between them, or a regular expression

  double resolved_learning_rate() const { return learning_rate.value_or(use_peft ? 2e-4 : 2e-5); }
  // "auto" still to be resolved by the machine.
  std::string resolved_dtype() const { return bf16 ? (*bf16 ? "bfloat16" : "float32") : dtype; }
};

// `result`: a run that is resumed must have the same value. `run`: how it is carried out and recorded.
enum class Shapes { result, run };

// One setting, bound to a config.
struct Field {
  using Target = std::variant<bool*, int64_t*, double*, std::string*, std::optional<bool>*, std::optional<double>*>;
  std::string name;
  std::string group;  // of --help
  std::string help;
  Shapes shapes;
  Target target;
};
std::vector<Field> fields_of(SftConfig& config);

// The value as YAML writes it ("null" where it is left open) and the value from text; ConfigError for text that is none.
std::string text_of(const Field& field);
void set_from_text(const Field& field, const std::string& text);

// Sets fields by name, then checks them all. Throws one ConfigError that lists everything that is wrong.
SftConfig make_sft_config(const std::vector<std::pair<std::string, std::string>>& settings);
void check(const SftConfig& config);

// The new adapter that the config asks for.
nn::LoraConfig lora_config(const SftConfig& config);

// Every field, the open ones resolved, in groups: loads again through --config.
std::string resolved_yaml(const SftConfig& config);
// name → value of the fields that shape the result, paths left out (their contents have fingerprints).
std::vector<std::pair<std::string, std::string>> result_settings(const SftConfig& config);

}  // namespace lathe::train
