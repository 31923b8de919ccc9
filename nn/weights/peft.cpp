#include "nn/weights/peft.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "nn/weights/misplaced_file.h"
#include "nn/weights/safetensors.h"

namespace lathe::nn {
namespace {

using json = nlohmann::ordered_json;

constexpr std::string_view key_prefix = "base_model.model.";
constexpr const char *config_file = "adapter_config.json", *weights_file = "adapter_model.safetensors";

void expect_file(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) return;
  const std::string instead = what_it_holds_instead(path.parent_path());
  throw ResourceError(path.string() + ": is not there; an adapter directory holds " + config_file + " and " +
                      weights_file + (instead.empty() ? "" : "; " + instead));
}

json read_config_json(const std::filesystem::path& path) {
  expect_file(path);
  json config = read_json_file(path);
  if (!config.is_object()) throw FormatError(path.string(), 0, "expected a JSON object");
  return config;
}

[[noreturn]] void wrong_type(const std::string& path, const std::string& key, const char* expected, const json& value) {
  throw FormatError(path, -1, key + ": expected " + expected + ", found " + json_excerpt(value));
}

std::string text_of(const std::string& path, const std::string& key, const json& value) {
  if (!value.is_string()) wrong_type(path, key, "a text", value);
  return value.get<std::string>();
}

bool truth_of(const std::string& path, const std::string& key, const json& value) {
  if (!value.is_boolean()) wrong_type(path, key, "true or false", value);
  return value.get<bool>();
}

// A list of names, or one text that is a regular expression.
void read_names(const std::string& path, const std::string& key, const json& value, std::vector<std::string>& names,
                std::optional<std::string>& regex) {
  if (value.is_string()) {
    regex = value.get<std::string>();
    return;
  }
  if (!value.is_array()) wrong_type(path, key, "a list of names or a regular expression", value);
  for (const json& name : value) names.push_back(text_of(path, key, name));
}

// {"pattern": value, …} in the file's order.
template <class T, class Read>
void read_patterns(const std::string& path, const std::string& key, const json& value,
                   std::vector<std::pair<std::string, T>>& patterns, Read read) {
  if (!value.is_object()) wrong_type(path, key, "an object of patterns", value);
  for (const auto& [pattern, number] : value.items())
    patterns.emplace_back(pattern, read(number, key + "." + pattern.substr(0, 60)));
}

// Fields that change what the adapter computes and that Lathe does not compute: they must be off.
void check_unsupported(const std::string& path, const json& config) {
  const auto reject = [&](const char* key, const json& off) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null() || *found == off || (found->is_array() && found->empty()) ||
        (found->is_object() && found->empty()))
      return;
    throw ConfigError(key, json_excerpt(*found) + " is not supported (" + path + ")");
  };
  const auto type = config.find("peft_type");
  if (type == config.end() || *type != "LORA")
    throw ConfigError("peft_type", "expected \"LORA\", found " +
                                       (type == config.end() ? "nothing" : json_excerpt(*type)) + " (" + path + ")");
  reject("bias", "none");
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"}) reject(key, false);
  for (const char* key : {"modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters",
                          "megatron_config", "alora_invocation_tokens", "arrow_config"})
    reject(key, nullptr);
}

// What PEFT writes beside, known to change nothing at inference.
bool is_harmless(const std::string& key) {
  static const std::set<std::string> keys = {"auto_mapping",
                                             "bias",
                                             "corda_config",
                                             "eva_config",
                                             "fan_in_fan_out",
                                             "inference_mode",
                                             "init_lora_weights",
                                             "layer_replication",
                                             "loftq_config",
                                             "lora_bias",
                                             "megatron_config",
                                             "megatron_core",
                                             "modules_to_save",
                                             "peft_type",
                                             "peft_version",
                                             "qalora_group_size",
                                             "revision",
                                             "target_parameters",
                                             "task_type",
                                             "trainable_token_indices",
                                             "use_dora",
                                             "use_qalora",
                                             "alora_invocation_tokens",
                                             "arrow_config",
                                             "ensure_weight_tying",
                                             "use_bdlora",
                                             "lora_ga_config",
                                             "monteclora_config"};
  return keys.contains(key);
}

constexpr int64_t largest_rank = 65536;

LoraConfig config_from_json(const std::string& path, const json& given, std::vector<std::string>* warnings) {
  check_unsupported(path, given);
  const auto rank_of = [&](const json& value, const std::string& key) {
    return json_integer(value, key, 1, largest_rank, path);
  };
  const auto number_of = [&](const json& value, const std::string& key) { return json_number(value, key, path); };
  LoraConfig config;
  for (const auto& [key, value] : given.items()) {
    if (value.is_null() || is_harmless(key)) {
      continue;
    } else if (key == "target_modules") {
      read_names(path, key, value, config.target_modules, config.target_modules_regex);
    } else if (key == "exclude_modules") {
      read_names(path, key, value, config.exclude_modules, config.exclude_modules_regex);
    } else if (key == "layers_to_transform") {
      for (const json& layer : value.is_array() ? value : json::array({value}))
        config.layers_to_transform.push_back(json_integer(layer, key, 0, INT32_MAX, path));
    } else if (key == "layers_pattern") {
      for (const json& name : value.is_array() ? value : json::array({value}))
        config.layers_pattern.push_back(text_of(path, key, name));
    } else if (key == "r") {
      config.r = rank_of(value, key);
    } else if (key == "lora_alpha") {
      config.lora_alpha = number_of(value, key);
    } else if (key == "lora_dropout") {
      config.lora_dropout = number_of(value, key);
    } else if (key == "use_rslora") {
      config.use_rslora = truth_of(path, key, value);
    } else if (key == "rank_pattern") {
      read_patterns(path, key, value, config.rank_pattern, rank_of);
    } else if (key == "alpha_pattern") {
      read_patterns(path, key, value, config.alpha_pattern, number_of);
    } else if (key == "base_model_name_or_path") {
      config.base_model_name_or_path = text_of(path, key, value);
    } else if (warnings != nullptr) {
      warnings->push_back(std::string(config_file) + ": unknown field " + key.substr(0, 60) + " is ignored");
    }
  }
  if (config.target_modules_regex && !config.layers_to_transform.empty())
    throw ConfigError("layers_to_transform",
                      "goes with a list of target_modules, not with a regular expression (" + path + ")");
  return config;
}

// Names as PEFT writes them: a text for a regular expression, null for none.
json names_json(const std::vector<std::string>& names, const std::optional<std::string>& regex, bool none_is_null) {
  if (regex) return *regex;
  if (names.empty() && none_is_null) return nullptr;
  return names;
}

template <class T>
json patterns_json(const std::vector<std::pair<std::string, T>>& patterns) {
  json object = json::object();
  for (const auto& [pattern, value] : patterns) object[pattern] = value;
  return object;
}

json config_to_json(const LoraConfig& config) {
  json result = {
      {"alpha_pattern", patterns_json(config.alpha_pattern)},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", config.base_model_name_or_path},
      {"bias", "none"},
      {"exclude_modules", names_json(config.exclude_modules, config.exclude_modules_regex, true)},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"layers_pattern", names_json(config.layers_pattern, std::nullopt, true)},
      {"layers_to_transform", config.layers_to_transform.empty() ? json() : json(config.layers_to_transform)},
      {"lora_alpha", config.lora_alpha},
      {"lora_dropout", config.lora_dropout},
      {"modules_to_save", nullptr},
      {"peft_type", "LORA"},
      {"r", config.r},
      {"rank_pattern", patterns_json(config.rank_pattern)},
      {"revision", nullptr},
      {"target_modules", names_json(config.target_modules, config.target_modules_regex, false)},
      {"task_type", "CAUSAL_LM"},
      {"use_dora", false},
      {"use_rslora", config.use_rslora}};
  // As Python writes a whole number that was given as one.
  if (std::trunc(config.lora_alpha) == config.lora_alpha && std::fabs(config.lora_alpha) < 0x1p53)
    result["lora_alpha"] = static_cast<int64_t>(config.lora_alpha);
  return result;
}

// "base_model.model.MODULE.lora_A.weight" → MODULE and whether it is A. A state dict that was saved as it was in memory
// has the adapter's name in its keys: "….lora_A.default.weight".
bool parse_key(std::string_view key, std::string& module, bool& is_a) {
  if (!key.starts_with(key_prefix)) return false;
  for (const std::string_view end : {".weight", ".default.weight"}) {
    for (const bool a : {true, false}) {
      const std::string suffix = std::string(a ? ".lora_A" : ".lora_B") + std::string(end);
      if (!key.ends_with(suffix) || key.size() <= key_prefix.size() + suffix.size()) continue;
      module = key.substr(key_prefix.size(), key.size() - key_prefix.size() - suffix.size());
      is_a = a;
      return true;
    }
  }
  return false;
}

}  // namespace

PeftAdapter read_peft_adapter(const std::filesystem::path& directory, std::vector<std::string>* warnings) {
  if (!std::filesystem::is_directory(directory))
    throw ResourceError(directory.string() + ": is no directory; expected an adapter directory with " + config_file +
                        " and " + weights_file);
  PeftAdapter adapter;
  const auto config_path = directory / config_file, weights_path = directory / weights_file;
  adapter.config = config_from_json(config_path.string(), read_config_json(config_path), warnings);
  expect_file(weights_path);
  const auto file = SafetensorsFile::open(weights_path);
  for (const std::string& key : file->names()) {
    std::string module;
    bool is_a = false;
    if (!parse_key(key, module, is_a))
      throw FormatError(weights_path.string(), -1,
                        "the key " + key + " is no LoRA weight (base_model.model.….lora_A.weight)");
    Tensor tensor = file->tensor(key);
    if (tensor.rank() != 2 || !is_floating(tensor.dtype()))
      throw FormatError(weights_path.string(), tensor.byte_offset(),
                        key + ": expected a matrix of floats, found " + describe(tensor));
    (is_a ? adapter.modules[module].a : adapter.modules[module].b) = tensor;
  }
  for (const auto& [module, weights] : adapter.modules)
    if (!weights.a.defined() || !weights.b.defined())
      throw FormatError(weights_path.string(), -1,
                        module + ": lora_" + (weights.a.defined() ? "B" : "A") + " is missing");
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
