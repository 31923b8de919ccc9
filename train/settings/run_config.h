// The config of a run: what every method shares, and how a method adds its own.
//
//   struct SftConfig : RunConfig, DataSettings, SftSettings {
//     static constexpr const char *method = "SFT", *command = "sft";
//     double resolved_learning_rate() const;
//   };
//   Fields fields_of(SftConfig& config);                    // the tables, composed
//   void check(const SftConfig& config, Complaints& wrong);  // each table's check
//
// A config is parsed once, checked whole (every error in one message), written to output_dir, and passed by const
// reference.
#pragma once

#include <string>

#include "nn/weights/peft.h"
#include "train/settings/adapter_settings.h"
#include "train/settings/data_settings.h"
#include "train/settings/field.h"
#include "train/settings/model_settings.h"
#include "train/settings/training_settings.h"

namespace lathe::train {

struct RunConfig : ModelSettings, AdapterSettings, TrainingSettings {};

// "q_proj, v_proj" with the spaces between the names taken out; a regular expression as it is.
std::string canonical_target_modules(const std::string& targets);

// What the tables together must keep to.
void check_run(const RunConfig& config, Complaints& wrong);

// The new adapter that the config asks for.
nn::LoraConfig lora_config(const RunConfig& config);

// Sets fields by name, then checks them all. Throws one ConfigError that lists everything that is wrong.
template <class Config>
Config make_config(const NamedValues& values) {
  Config config;
  Complaints wrong;
  set_fields(fields_of(config), values, Config::method, wrong);
  check(config, wrong);
  check_run(config, wrong);
  wrong.raise();
  return config;
}

// What was left open gets the value that it stands for; "auto" is still to be resolved by the machine.
template <class Config>
Config resolved(Config config) {
  config.learning_rate = config.resolved_learning_rate();
  config.dtype = config.resolved_dtype();
  config.bf16.reset();
  config.fp16 = false;
  // As prepare_model_for_kbit_training has it: who lacks memory for the weights lacks it for activations.
  config.gradient_checkpointing = config.gradient_checkpointing.value_or(config.quantized());
  if constexpr (requires { config.resolve(); }) config.resolve();  // what the method leaves open
  config.lora_target_modules = canonical_target_modules(config.lora_target_modules);
  return config;
}

// Every field, resolved: loads again through --config.
template <class Config>
std::string resolved_yaml(const Config& config) {
  Config copy = resolved(config);
  return yaml_of(fields_of(copy), Config::command);
}

// What a run that goes on from a checkpoint must agree in. Paths are left out: their contents have fingerprints.
template <class Config>
NamedValues result_settings(const Config& config) {
  Config copy = resolved(config);
  NamedValues values = result_values(fields_of(copy));
  // Another number of ranks adds the same gradients in another order.
  values.emplace_back("per_device_train_batch_size × gradient_accumulation_steps",
                      std::to_string(copy.rows_per_step()) +
                          (copy.world_size > 1 ? " of " + std::to_string(copy.world_size) + " ranks" : ""));
  return values;
}

}  // namespace lathe::train
