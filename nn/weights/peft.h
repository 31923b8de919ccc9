// PEFT adapter directories: adapter_config.json + adapter_model.safetensors, read and written so that the peer loads
// what Lathe wrote and the other way round. PEFT ignores keys that it does not know; here every key must find its
// linear.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace lathe::nn {

// Names and defaults are PEFT's LoraConfig.
struct LoraConfig {
  int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0.0;
  bool use_rslora = false;
  // A list of names or suffixes, or one string: "all-linear" or a regular expression of Python's re that matches the
  // full module name. exclude_modules takes from these in the same two ways.
  std::vector<std::string> target_modules, exclude_modules;
  std::optional<std::string> target_modules_regex, exclude_modules_regex;
  // Where not empty, a list of target_modules counts in these layers alone: the number that follows one of
  // layers_pattern's names ("layers"; any name where it is empty) in the module's name.
  std::vector<int64_t> layers_to_transform;
  std::vector<std::string> layers_pattern;
  // Regular expression → value, in the file's order: the first that matches the end of the module's name counts.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  std::string base_model_name_or_path;

  // Both by the full module name ("model.layers.0.self_attn.q_proj"), patterns applied.
  int64_t rank_of(std::string_view module) const;
  double scaling_of(std::string_view module) const;  // α/r, or α/√r with rslora
  // "all-linear" matches every linear but the output embedding.
  bool targets(std::string_view module) const;
};

struct LoraWeights {
  Tensor a;  // f32 [r, in]
  Tensor b;  // f32 [out, r]
};

struct PeftAdapter {
  LoraConfig config;
  std::map<std::string, LoraWeights> modules;  // by full module name
};

// Throws FormatError for files that break their format, ConfigError for options that are not supported (DoRA, bias,
// modules_to_save, another peft_type), naming the key. Unknown configuration fields are collected in `warnings`.
PeftAdapter read_peft_adapter(const std::filesystem::path& directory, std::vector<std::string>* warnings = nullptr);

// Writes both files into an existing directory, each atomically.
void write_peft_adapter(const std::filesystem::path& directory, const PeftAdapter& adapter);

}  // namespace lathe::nn
