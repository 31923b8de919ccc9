#include "nn/weights/peft.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/atomic_write.h"
#include "core/error.h"
#include "nn/weights/safetensors.h"

namespace lathe::nn {
namespace {

using nlohmann::json;

constexpr std::string_view key_prefix = "base_model.model.";
constexpr const char *config_file = "adapter_config.json", *weights_file = "adapter_model.safetensors";

json read_config_json(const std::filesystem::path& path) {
  std::ifstream stream(path);
  if (!stream) throw ResourceError(path.string() + ": cannot be opened; an adapter directory holds " + config_file);
  try {
    json config = json::parse(stream);
    if (!config.is_object()) throw FormatError(path.string(), 0, "expected a JSON object");
    return config;
  } catch (const json::parse_error& error) {
    throw FormatError(path.string(), static_cast<int64_t>(error.byte), std::string("is no JSON: ") + error.what());
  }
}

template <class T>
T typed(const std::string& path, const std::string& key, const json& value) {
  try {
    return value.get<T>();
  } catch (const json::exception&) {
    throw FormatError(path, -1, key + " has the wrong type: " + value.dump());
  }
}

// Fields that change what the adapter computes and that Lathe does not compute: they must be off.
void check_unsupported(const std::string& path, const json& config) {
  const auto reject = [&](const char* key, const json& off) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null() || *found == off || (found->is_array() && found->empty()) ||
        (found->is_object() && found->empty()))
      return;
    throw ConfigError(key, found->dump() + " is not supported (" + path + ")");
  };
  const auto type = config.find("peft_type");
  if (type == config.end() || *type != "LORA")
    throw ConfigError("peft_type", "expected \"LORA\", found " + (type == config.end() ? "nothing" : type->dump()) + " (" + path + ")");
  reject("bias", "none");
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"}) reject(key, false);
  for (const char* key : {"modules_to_save", "layers_to_transform", "layers_pattern", "layer_replication", "trainable_token_indices",
                          "target_parameters", "exclude_modules", "megatron_config", "alora_invocation_tokens", "arrow_config"})
    reject(key, nullptr);
}

// What PEFT writes beside, known to change nothing at inference.
bool is_harmless(const std::string& key) {
  static const std::set<std::string> keys = {
      "auto_mapping", "bias", "corda_config", "eva_config", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layer_replication",
      "layers_pattern", "layers_to_transform", "loftq_config", "lora_bias", "megatron_config", "megatron_core", "modules_to_save",
      "peft_type", "peft_version", "qalora_group_size", "revision", "target_parameters", "task_type", "trainable_token_indices",
      "use_dora", "use_qalora", "exclude_modules", "alora_invocation_tokens", "arrow_config", "ensure_weight_tying", "use_bdlora",
      "lora_ga_config", "monteclora_config"};
  return keys.contains(key);
}

void read_target_modules(const std::string& path, const json& value, LoraConfig& config) {
  if (value.is_string()) {
    config.target_modules_regex = value.get<std::string>();
  } else {
    config.target_modules = typed<std::vector<std::string>>(path, "target_modules", value);
  }
}

LoraConfig config_from_json(const std::string& path, const json& given, std::vector<std::string>* warnings) {
  check_unsupported(path, given);
  LoraConfig config;
  for (const auto& [key, value] : given.items()) {
    if (key == "target_modules") {
      read_target_modules(path, value, config);
    } else if (value.is_null() || is_harmless(key)) {
      continue;
    } else if (key == "r") {
      config.r = typed<int64_t>(path, key, value);
    } else if (key == "lora_alpha") {
      config.lora_alpha = typed<double>(path, key, value);
    } else if (key == "lora_dropout") {
      config.lora_dropout = typed<double>(path, key, value);
    } else if (key == "use_rslora") {
      config.use_rslora = typed<bool>(path, key, value);
    } else if (key == "rank_pattern") {
      config.rank_pattern = typed<std::map<std::string, int64_t>>(path, key, value);
    } else if (key == "alpha_pattern") {
      config.alpha_pattern = typed<std::map<std::string, double>>(path, key, value);
    } else if (key == "base_model_name_or_path") {
      config.base_model_name_or_path = typed<std::string>(path, key, value);
    } else if (warnings != nullptr) {
      warnings->push_back(std::string(config_file) + ": unknown field " + key + " is ignored");
    }
  }
  const auto positive = [&](const std::string& key, int64_t rank) {
    if (rank < 1 || rank > 65536) throw FormatError(path, -1, key + ": a rank of " + std::to_string(rank));
  };
  positive("r", config.r);
  for (const auto& [pattern, rank] : config.rank_pattern) positive("rank_pattern." + pattern, rank);
  return config;
}

json config_to_json(const LoraConfig& config) {
  json result = {{"alpha_pattern", config.alpha_pattern},
                 {"auto_mapping", nullptr},
                 {"base_model_name_or_path", config.base_model_name_or_path},
                 {"bias", "none"},
                 {"fan_in_fan_out", false},
                 {"inference_mode", true},
                 {"init_lora_weights", true},
                 {"layers_pattern", nullptr},
                 {"layers_to_transform", nullptr},
                 {"lora_alpha", config.lora_alpha},
                 {"lora_dropout", config.lora_dropout},
                 {"modules_to_save", nullptr},
                 {"peft_type", "LORA"},
                 {"r", config.r},
                 {"rank_pattern", config.rank_pattern},
                 {"revision", nullptr},
                 {"task_type", "CAUSAL_LM"},
                 {"use_dora", false},
                 {"use_rslora", config.use_rslora}};
  if (config.lora_alpha == static_cast<double>(static_cast<int64_t>(config.lora_alpha)))
    result["lora_alpha"] = static_cast<int64_t>(config.lora_alpha);
  if (config.target_modules_regex) {
    result["target_modules"] = *config.target_modules_regex;
  } else {
    result["target_modules"] = config.target_modules;
  }
  return result;
}

// "base_model.model.MODULE.lora_A.weight" → MODULE and whether it is A.
bool parse_key(std::string_view key, std::string& module, bool& is_a) {
  if (!key.starts_with(key_prefix)) return false;
  is_a = key.ends_with(".lora_A.weight");
  if (!is_a && !key.ends_with(".lora_B.weight")) return false;
  module = key.substr(key_prefix.size(), key.size() - key_prefix.size() - std::string_view(".lora_A.weight").size());
  return true;
}

}  // namespace

PeftAdapter read_peft_adapter(const std::filesystem::path& directory, std::vector<std::string>* warnings) {
  if (!std::filesystem::is_directory(directory))
    throw ResourceError(directory.string() + ": is no directory; expected an adapter directory with " + config_file + " and " + weights_file);
  PeftAdapter adapter;
  const auto config_path = directory / config_file, weights_path = directory / weights_file;
  adapter.config = config_from_json(config_path.string(), read_config_json(config_path), warnings);
  const auto file = SafetensorsFile::open(weights_path);
  for (const std::string& key : file->names()) {
    std::string module;
    bool is_a = false;
    if (!parse_key(key, module, is_a))
      throw FormatError(weights_path.string(), -1, "the key " + key + " is no LoRA weight (base_model.model.….lora_A.weight)");
    Tensor tensor = file->tensor(key);
    if (tensor.rank() != 2 || !is_floating(tensor.dtype()))
      throw FormatError(weights_path.string(), tensor.byte_offset(), key + ": expected a matrix of floats, found " + describe(tensor));
    (is_a ? adapter.modules[module].a : adapter.modules[module].b) = tensor;
  }
  for (const auto& [module, weights] : adapter.modules)
    if (!weights.a.defined() || !weights.b.defined())
      throw FormatError(weights_path.string(), -1, module + ": lora_" + (weights.a.defined() ? "B" : "A") + " is missing");
  return adapter;
}

void write_peft_adapter(const std::filesystem::path& directory, const PeftAdapter& adapter) {
  NamedTensors tensors;
  for (const auto& [module, weights] : adapter.modules) {
    tensors.emplace_back(std::string(key_prefix) + module + ".lora_A.weight", weights.a);
    tensors.emplace_back(std::string(key_prefix) + module + ".lora_B.weight", weights.b);
  }
  write_safetensors(directory / weights_file, tensors);
  write_file_atomically(directory / config_file, config_to_json(adapter.config).dump(2) + "\n");
}

}  // namespace lathe::nn
