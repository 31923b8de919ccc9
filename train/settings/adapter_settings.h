// What of the model is trained: an adapter, or every weight.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/settings/field.h"

namespace lathe::train {

struct AdapterSettings {
  bool use_peft = true;
  std::string adapter;  // a PEFT directory to train further; empty: a new one
  int64_t lora_r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0.05;
  std::string lora_target_modules = "all-linear";  // or names with commas between them, or a regular expression
  std::string lora_target_parameters;              // of experts, names with commas between them
  bool use_rslora = false, use_dora = false;
  std::string init_lora_weights = "true";  // nn/lora_start.h
  // JSON: {"down_proj": 8, "layers.0.self_attn.q_proj": 4}, regular expressions for the end of a name.
  std::string rank_pattern, alpha_pattern;
  // Names with commas between them, or for exclude_modules a regular expression; empty for none.
  std::string exclude_modules, lora_modules_to_save;
  std::string layers_to_transform;  // numbers with commas between them; empty: all
  std::string layers_pattern;       // of layers_to_transform: names with commas between them
};

// Pattern and value, in their order. ConfigError, with the setting's name, for text that is no object of numbers; ranks
// are whole.
std::vector<std::pair<std::string, int64_t>> rank_patterns(const std::string& text);
std::vector<std::pair<std::string, double>> alpha_patterns(const std::string& text);

// The numbers of a list (list_parts()); nothing where one is no layer's number.
std::optional<std::vector<int64_t>> listed_layers(const std::string& text);

Fields adapter_fields(AdapterSettings& settings);
void check_adapter(const AdapterSettings& settings, Complaints& wrong);

}  // namespace lathe::train
