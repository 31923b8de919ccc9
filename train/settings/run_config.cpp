#include "train/settings/run_config.h"

#include <algorithm>
#include <cctype>

#include "nn/lora_start.h"

namespace lathe::train {
namespace {

// Letters, digits, '_' and '.' alone: module names. Anything else is an expression, or the word all-linear.
bool is_name(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '.'; });
}

}  // namespace

std::string canonical_target_modules(const std::string& targets) {
  const std::vector<std::string> names = list_parts(targets);
  if (names.size() == 1 && names[0] == "all-linear") return names[0];
  std::string joined;
  for (const std::string& name : names) {
    if (!is_name(name)) return targets;
    joined += (joined.empty() ? "" : ",") + name;
  }
  return joined;
}

void check_run(const RunConfig& config, Complaints& wrong) {
  const std::vector<std::string> targets = list_parts(config.lora_target_modules);
  const bool names = std::all_of(targets.begin(), targets.end(), is_name) &&
                     canonical_target_modules(config.lora_target_modules) != "all-linear";
  wrong.require(config.layers_to_transform.empty() || names, "layers_to_transform",
                "goes with names in lora_target_modules (q_proj,v_proj), not with all-linear or a regular expression");
  const auto start = nn::parse_lora_start(config.init_lora_weights);
  wrong.require(!start || !start->from_base() || !config.quantized(), "init_lora_weights",
                config.init_lora_weights + " needs the weights as they are: leave load_in_4bit and load_in_8bit out");
  wrong.require(config.use_peft || !config.quantized(), config.load_in_4bit ? "load_in_4bit" : "load_in_8bit",
                "cannot go with use_peft false: codes are not trained; train an adapter beside them, or whole weights "
                "without it");
}

nn::LoraConfig lora_config(const RunConfig& config) {
  nn::LoraConfig lora;
  lora.r = config.lora_r;
  lora.lora_alpha = config.lora_alpha;
  lora.lora_dropout = config.lora_dropout;
  lora.use_rslora = config.use_rslora;
  lora.use_dora = config.use_dora;
  lora.init_lora_weights = config.init_lora_weights;
  lora.rank_pattern = rank_patterns(config.rank_pattern);
  lora.alpha_pattern = alpha_patterns(config.alpha_pattern);
  lora.layers_pattern = list_parts(config.layers_pattern);
  lora.target_parameters = list_parts(config.lora_target_parameters);
  lora.modules_to_save = nn::saved_modules(list_parts(config.lora_modules_to_save));
  lora.layers_to_transform = listed_layers(config.layers_to_transform).value();
  lora.base_model_name_or_path = config.model;
  if (std::vector<std::string> excluded = list_parts(config.exclude_modules);
      std::all_of(excluded.begin(), excluded.end(), is_name)) {
    lora.exclude_modules = std::move(excluded);
  } else {
    lora.exclude_modules_regex = config.exclude_modules;
  }
  const std::string targets = canonical_target_modules(config.lora_target_modules);
  std::vector<std::string> names = list_parts(targets);
  if (std::all_of(names.begin(), names.end(), is_name)) {
    lora.target_modules = std::move(names);
  } else {
    lora.target_modules_regex = targets;
  }
  return lora;
}

}  // namespace lathe::train
