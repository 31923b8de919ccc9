#include "nn/weights/peft_config_file.h"

#include <cmath>
#include <cstdio>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::nn {
namespace {

using json = nlohmann::ordered_json;

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
  // These starts have changed the base's weights, too; PEFT converts such an adapter when it is asked to while saving.
  const auto start = config.find("init_lora_weights");
  if (start != config.end() && start->is_string() && *start != "gaussian" && *start != "eva" && *start != "orthogonal")
    throw ConfigError("init_lora_weights",
                      json_excerpt(*start) +
                          " has changed the base's weights, so that the adapter does not fit the "
                          "base as it is; save it with path_initial_model_for_weight_conversion (" +
                          path + ")");
  reject("bias", "none");
  for (const char* key : {"fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"}) reject(key, false);
  for (const char* key :
       {"layer_replication", "trainable_token_indices", "megatron_config", "alora_invocation_tokens", "arrow_config"})
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
                                             "layer_replication",
                                             "loftq_config",
                                             "lora_bias",
                                             "megatron_config",
                                             "megatron_core",
                                             "peft_type",
                                             "peft_version",
                                             "qalora_group_size",
                                             "revision",
                                             "task_type",
                                             "trainable_token_indices",
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

// modules_to_save of PEFT name modules by the end of their path; here the two that can be trained whole.
std::string saved_module(const std::string& path, const std::string& name) {
  if (name == output_module) return name;
  if (name == "embed_tokens" || name == embedding_module) return std::string(embedding_module);
  throw ConfigError("modules_to_save", name + " cannot be trained whole: expected lm_head or embed_tokens" + path);
}

}  // namespace

std::vector<std::string> saved_modules(const std::vector<std::string>& names, const std::string& path) {
  std::set<std::string> modules;
  for (const std::string& name : names) modules.insert(saved_module(path.empty() ? "" : " (" + path + ")", name));
  return {modules.begin(), modules.end()};
}

LoraConfig lora_config_from_json(const std::string& path, const json& given, std::vector<std::string>* warnings) {
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
    } else if (key == "target_parameters") {
      if (!value.is_array()) wrong_type(path, key, "a list of names", value);
      for (const json& name : value) config.target_parameters.push_back(text_of(path, key, name));
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
    } else if (key == "use_dora") {
      config.use_dora = truth_of(path, key, value);
    } else if (key == "modules_to_save") {
      if (!value.is_array()) wrong_type(path, key, "a list of names", value);
      std::vector<std::string> names;
      for (const json& name : value) names.push_back(text_of(path, key, name));
      config.modules_to_save = saved_modules(names, path);
    } else if (key == "use_rslora") {
      config.use_rslora = truth_of(path, key, value);
    } else if (key == "rank_pattern") {
      read_patterns(path, key, value, config.rank_pattern, rank_of);
    } else if (key == "alpha_pattern") {
      read_patterns(path, key, value, config.alpha_pattern, number_of);
    } else if (key == "init_lora_weights") {
      config.init_lora_weights =
          value.is_boolean() ? (value.get<bool>() ? "true" : "false") : text_of(path, key, value);
    } else if (key == "base_model_name_or_path") {
      config.base_model_name_or_path = text_of(path, key, value);
    } else if (warnings != nullptr) {
      warnings->push_back("adapter_config.json: unknown field " + key.substr(0, 60) + " is ignored");
    }
  }
  if (config.target_modules_regex && !config.layers_to_transform.empty())
    throw ConfigError("layers_to_transform",
                      "goes with a list of target_modules, not with a regular expression (" + path + ")");
  return config;
}

namespace {

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

}  // namespace

json lora_config_to_json(const LoraConfig& config) {
  json result = {
      {"alpha_pattern", patterns_json(config.alpha_pattern)},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", config.base_model_name_or_path},
      {"bias", "none"},
      {"exclude_modules", names_json(config.exclude_modules, config.exclude_modules_regex, true)},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", config.init_lora_weights},
      {"layers_pattern", names_json(config.layers_pattern, std::nullopt, true)},
      {"layers_to_transform", config.layers_to_transform.empty() ? json() : json(config.layers_to_transform)},
      {"lora_alpha", config.lora_alpha},
      {"lora_dropout", config.lora_dropout},
      {"modules_to_save", config.modules_to_save.empty() ? json() : json(config.modules_to_save)},
      {"peft_type", "LORA"},
      {"r", config.r},
      {"rank_pattern", patterns_json(config.rank_pattern)},
      {"revision", nullptr},
      {"target_modules", names_json(config.target_modules, config.target_modules_regex, false)},
      {"task_type", "CAUSAL_LM"},
      {"use_dora", config.use_dora},
      {"use_rslora", config.use_rslora}};
  if (!config.target_parameters.empty()) result["target_parameters"] = config.target_parameters;
  if (config.init_lora_weights == "true" || config.init_lora_weights == "false")
    result["init_lora_weights"] = config.init_lora_weights == "true";
  // As Python writes a whole number that was given as one.
  if (std::trunc(config.lora_alpha) == config.lora_alpha && std::fabs(config.lora_alpha) < 0x1p53)
    result["lora_alpha"] = static_cast<int64_t>(config.lora_alpha);
  return result;
}

}  // namespace lathe::nn
