// The table of settings behind --help, --config, the resolved config and the comparison on resume, and its checks.
#include <cmath>
#include <map>

#include "core/error.h"
#include "train/learning_rate_schedule.h"
#include "train/training_config.h"

namespace lathe::train {

std::vector<Field> fields_of(SftConfig& c) {
  constexpr auto result = Shapes::result;
  constexpr auto run = Shapes::run;
  const char *model = "Model and data", *adapter = "Adapter (LoRA)", *steps = "Optimisation",
             *memory = "Memory and dtype", *records = "Records and checkpoints";
  return {
      {"model", model, "Hugging Face directory or .gguf file", run, &c.model},
      {"dataset", model,
       "JSONL file: {\"prompt\", \"completion\"}, {\"messages\"}, {\"text\"}, {\"conversations\"} or {\"input_ids\"} "
       "rows",
       run, &c.dataset},
      {"eval_dataset", model, "JSONL file to measure eval_loss and eval_mean_token_accuracy on", run, &c.eval_dataset},
      {"dataset_text_field", model, "the field of plain text rows", run, &c.dataset_text_field},
      {"max_length", model, "tokens of a row; what is longer loses its end", result, &c.max_length},
      {"too_long", model, "truncate rows above max_length, or stop with an error", run, &c.too_long},
      {"packing", model, "put several rows into one of max_length tokens (attention stays within each)", result,
       &c.packing},
      {"packing_strategy", model, "bfd, bfd_split or wrapped", result, &c.packing_strategy},
      {"completion_only_loss", model, "learn the completion alone (default: where rows have one)", result,
       &c.completion_only_loss},
      {"assistant_only_loss", model, "learn what the assistant says alone (the template must mark it)", result,
       &c.assistant_only_loss},
      {"shuffle", model, "another order of the rows in every epoch", result, &c.shuffle},

      {"use_peft", adapter, "train an adapter; false trains every weight", result, &c.use_peft},
      {"adapter", adapter, "PEFT adapter directory to train further (its own rank and targets count)", run, &c.adapter},
      {"lora_r", adapter, "rank", result, &c.lora_r},
      {"lora_alpha", adapter, "scale: alpha / r", result, &c.lora_alpha},
      {"lora_dropout", adapter, "share of the adapter's inputs dropped while training", result, &c.lora_dropout},
      {"lora_target_modules", adapter,
       "all-linear, names such as q_proj,v_proj, or a regular expression for whole names", result,
       &c.lora_target_modules},
      {"use_rslora", adapter, "scale: alpha / √r", result, &c.use_rslora},

      {"learning_rate", steps, "peak rate (default: 2e-4 for adapters, 2e-5 for whole models)", result,
       &c.learning_rate},
      {"lr_scheduler_type", steps, "linear, cosine, constant or constant_with_warmup", result, &c.lr_scheduler_type},
      {"warmup_steps", steps, "steps over which the rate rises from 0", result, &c.warmup_steps},
      {"warmup_ratio", steps, "the same as a share of all steps, where warmup_steps is 0", result, &c.warmup_ratio},
      {"num_train_epochs", steps, "passes over the rows", result, &c.num_train_epochs},
      {"max_steps", steps, "optimiser steps; above 0 it overrides num_train_epochs", result, &c.max_steps},
      {"per_device_train_batch_size", steps, "rows of a micro-batch", run, &c.per_device_train_batch_size},
      {"gradient_accumulation_steps", steps, "micro-batches of a step (8 × 1 and 1 × 8 give the same bits)", run,
       &c.gradient_accumulation_steps},
      {"max_grad_norm", steps, "gradients are scaled down to this norm (0: never)", result, &c.max_grad_norm},
      {"optim", steps,
       "adamw_torch, or adamw_8bit: AdamW's two moments in a byte each (tensors under 4096 elements stay f32)", result,
       &c.optim},
      {"weight_decay", steps, "AdamW's, norms and biases excluded", result, &c.weight_decay},
      {"adam_beta1", steps, "AdamW's decay of the mean", result, &c.adam_beta1},
      {"adam_beta2", steps, "AdamW's decay of the mean square", result, &c.adam_beta2},
      {"adam_epsilon", steps, "AdamW's floor under the root", result, &c.adam_epsilon},
      {"seed", steps, "of the initial adapter, the order of rows and dropout", result, &c.seed},

      {"dtype", memory, "auto (bfloat16 where the CPU multiplies it), float32 or bfloat16", result, &c.dtype},
      {"bf16", memory, "true: dtype bfloat16, false: dtype float32", run, &c.bf16},
      {"gradient_checkpointing", memory,
       "compute a layer's activations again in the backward: less memory, a third more time, the same bits (TRL has it "
       "on; here off)",
       run, &c.gradient_checkpointing},
      {"max_tokens_per_forward", memory,
       "cut micro-batches between rows above this many tokens: less memory, the same bits (0: never)", run,
       &c.max_tokens_per_forward},

      {"output_dir", records, "where the adapter, metrics, report and checkpoints go", run, &c.output_dir},
      {"logging_steps", records, "steps between lines of metrics.jsonl", run, &c.logging_steps},
      {"eval_steps", records, "steps between evaluations (0: at the end of each epoch)", run, &c.eval_steps},
      {"save_steps", records, "steps between checkpoints (0: only the last)", run, &c.save_steps},
      {"save_total_limit", records, "checkpoints kept, newest first (0: all)", run, &c.save_total_limit},
      {"resume", records, "go on from the newest whole checkpoint in output_dir, if there is one", run, &c.resume},
      {"resume_from_checkpoint", records, "go on from this checkpoint directory", run, &c.resume_from_checkpoint},
      {"overwrite_output_dir", records, "delete an earlier run's checkpoints and metrics first", run,
       &c.overwrite_output_dir},
      {"dry_run", records, "print the plan and the memory estimate, then stop", run, &c.dry_run},
  };
}

namespace {

// Collects what is wrong, so that a user mends it in one go.
class Complaints {
 public:
  void require(bool good, const std::string& key, const std::string& reason) {
    if (!good) add(key, reason);
  }
  void add(const std::string& key, const std::string& reason) {
    if (keys_.empty()) first_ = key;
    keys_ += (keys_.empty() ? "" : "\n  " + key + ": ") + reason;
  }
  void raise() const {
    if (!keys_.empty()) throw ConfigError(first_, keys_);
  }

 private:
  std::string first_, keys_;
};

bool one_of(const std::string& value, std::initializer_list<const char*> choices) {
  for (const char* choice : choices)
    if (value == choice) return true;
  return false;
}

void check_into(Complaints& wrong, const SftConfig& c) {
  wrong.require(!c.model.empty(), "model", "is missing: a Hugging Face directory or a .gguf file");
  wrong.require(!c.dataset.empty(), "dataset", "is missing: a JSONL file of examples");
  wrong.require(!c.output_dir.empty() || c.dry_run, "output_dir", "is missing: the folder to write to");
  const auto positive = [&](const char* key, int64_t value) {
    wrong.require(value > 0, key, "must be at least 1, found " + std::to_string(value));
  };
  const auto not_negative = [&](const char* key, double value) {
    wrong.require(value >= 0 && std::isfinite(value), key, "must be 0 or more, found " + std::to_string(value));
  };
  const auto share = [&](const char* key, double value) {
    wrong.require(value >= 0 && value < 1, key, "must be in [0, 1), found " + std::to_string(value));
  };
  positive("per_device_train_batch_size", c.per_device_train_batch_size);
  positive("gradient_accumulation_steps", c.gradient_accumulation_steps);
  wrong.require(c.rows_per_step() <= 65536, "gradient_accumulation_steps", "a step may have at most 65536 rows");
  wrong.require(c.max_length >= 2 && c.max_length <= 262144, "max_length",
                "must be from 2 to 262144, found " + std::to_string(c.max_length));
  positive("lora_r", c.lora_r);
  positive("logging_steps", c.logging_steps);
  wrong.require(c.max_steps > 0 || (c.num_train_epochs > 0 && std::isfinite(c.num_train_epochs)), "num_train_epochs",
                "must be above 0 where max_steps is not given");
  if (c.learning_rate) not_negative("learning_rate", *c.learning_rate);
  not_negative("warmup_steps", static_cast<double>(c.warmup_steps));
  wrong.require(c.warmup_ratio >= 0 && c.warmup_ratio <= 1, "warmup_ratio", "must be from 0 to 1");
  not_negative("max_grad_norm", c.max_grad_norm);
  not_negative("weight_decay", c.weight_decay);
  share("adam_beta1", c.adam_beta1);
  share("adam_beta2", c.adam_beta2);
  not_negative("adam_epsilon", c.adam_epsilon);
  share("lora_dropout", c.lora_dropout);
  wrong.require(std::isfinite(c.lora_alpha), "lora_alpha", "must be a number");
  for (const auto& [key, value] : {std::pair{"eval_steps", c.eval_steps},
                                   {"save_steps", c.save_steps},
                                   {"save_total_limit", c.save_total_limit},
                                   {"seed", c.seed},
                                   {"max_tokens_per_forward", c.max_tokens_per_forward}})
    not_negative(key, static_cast<double>(value));
  wrong.require(parse_schedule(c.lr_scheduler_type).has_value(), "lr_scheduler_type",
                "'" + c.lr_scheduler_type + "' is none of linear, cosine, constant, constant_with_warmup");
  wrong.require(one_of(c.optim, {"adamw_torch", "adamw_torch_fused", "adamw_8bit", "adamw_bnb_8bit"}), "optim",
                "'" + c.optim + "' is neither adamw_torch nor adamw_8bit");
  wrong.require(one_of(c.packing_strategy, {"bfd", "bfd_split", "wrapped"}), "packing_strategy",
                "'" + c.packing_strategy + "' is none of bfd, bfd_split, wrapped");
  wrong.require(one_of(c.too_long, {"truncate", "error"}), "too_long",
                "'" + c.too_long + "' is neither truncate nor error");
  wrong.require(one_of(c.dtype, {"auto", "float32", "f32", "bfloat16", "bf16"}), "dtype",
                "'" + c.dtype + "' is none of auto, float32, bfloat16");
  wrong.require(!(c.bf16 && c.dtype != "auto"), "bf16", "give bf16 or dtype, not both");
  wrong.require(!c.lora_target_modules.empty(), "lora_target_modules", "is empty");
  wrong.require(c.use_peft || c.adapter.empty(), "adapter", "has no use with use_peft false");
  wrong.require(!(c.resume && c.overwrite_output_dir), "overwrite_output_dir", "cannot go with resume: choose one");
}

}  // namespace

void check(const SftConfig& config) {
  Complaints wrong;
  check_into(wrong, config);
  wrong.raise();
}

SftConfig make_sft_config(const std::vector<std::pair<std::string, std::string>>& settings) {
  SftConfig config;
  Complaints wrong;
  std::map<std::string, Field> by_name;
  for (Field& field : fields_of(config)) by_name.emplace(field.name, field);
  for (const auto& [name, text] : settings) {
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      wrong.add(name, "is no setting of SFT");
      continue;
    }
    try {
      set_from_text(found->second, text);
    } catch (const ConfigError& error) {
      wrong.add(name, std::string(error.what()).substr(name.size() + 2));
    }
  }
  check_into(wrong, config);
  wrong.raise();
  return config;
}

}  // namespace lathe::train
