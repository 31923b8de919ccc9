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

// The two modules beside the layers' linears that an adapter may change, and the only ones that it may train whole.
inline constexpr std::string_view embedding_module = "model.embed_tokens", output_module = "lm_head";

// Names and defaults are PEFT's LoraConfig.
struct LoraConfig {
  int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0.0;
  bool use_rslora = false;
  bool use_dora = false;
  // A list of names or suffixes, or one string: "all-linear" or a regular expression of Python's re that matches the
  // full module name. exclude_modules takes from these in the same two ways.
  std::vector<std::string> target_modules, exclude_modules;
  std::optional<std::string> target_modules_regex, exclude_modules_regex;
  // Parameters that are adapted beside these, by their names or ends of them: experts' (nn/expert_adapters.h).
  std::vector<std::string> target_parameters;
  // Where not empty, a list of target_modules counts in these layers alone: the number that follows one of
  // layers_pattern's names ("layers"; any name where it is empty) in the module's name.
  std::vector<int64_t> layers_to_transform;
  std::vector<std::string> layers_pattern;
  // Regular expression → value, in the file's order: the first that matches the end of the module's name counts.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  // Trained whole beside the adapter: full names, sorted (saved_modules).
  std::vector<std::string> modules_to_save;
  std::string base_model_name_or_path;
  // What a new one begins as (nn/lora_start.h); of one that was trained, a note.
  std::string init_lora_weights = "true";
  // What it was trained beside, where that is known: the weights (model_fingerprint, in hexadecimal), and how their
  // linears were held ("nf4"; empty: as they are).
  std::string base_fingerprint, base_quantization;

  // Both by the full module name ("model.layers.0.self_attn.q_proj"), patterns applied.
  int64_t rank_of(std::string_view module) const;
  double scaling_of(std::string_view module) const;  // α/r, or α/√r with rslora
  // What of rank_pattern, alpha_pattern and exclude_modules has no effect on any of these modules: sentences.
  std::vector<std::string> without_effect(const std::vector<std::string>& modules) const;
  // "all-linear" matches every linear but the output embedding, and no embedding.
  bool targets(std::string_view module) const;
  bool targets_parameter(std::string_view name) const;  // "model.layers.0.mlp.experts.gate_up_proj"
};

// "lm_head", "embed_tokens", "model.embed_tokens" as full names, sorted; ConfigError for any other, with `path` named.
std::vector<std::string> saved_modules(const std::vector<std::string>& names, const std::string& path = {});

struct LoraWeights {
  Tensor a;          // f32 [r, in]; of the embedding lora_embedding_A [r, vocab]
  Tensor b;          // f32 [out, r]; lora_embedding_B [hidden, r]
  Tensor magnitude;  // f32 [out] with DoRA
};

// "base_model.model.MODULE.lora_A.weight"; other parts than lora_A and lora_B have no ".weight".
std::string peft_key(std::string_view module, std::string_view part);

struct PeftAdapter {
  LoraConfig config;
  std::map<std::string, LoraWeights> modules;  // by full module name
  std::map<std::string, Tensor> saved;         // of modules_to_save, by full name: [vocab, hidden]
  Tensor embedding_base;  // what PEFT writes beside an adapted embedding: the base's own, as it was
};

// Throws FormatError for files that break their format, ConfigError for options that are not supported (bias, other
// modules_to_save than lm_head and embed_tokens, another peft_type), naming the key. Unknown configuration fields are
// collected in `warnings`.
PeftAdapter read_peft_adapter(const std::filesystem::path& directory, std::vector<std::string>* warnings = nullptr);

// Writes both files into an existing directory, each atomically, and base_model.json with what is known of the base,
// which PEFT does not look at.
void write_peft_adapter(const std::filesystem::path& directory, const PeftAdapter& adapter);

}  // namespace lathe::nn
