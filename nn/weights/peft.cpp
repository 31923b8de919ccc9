#include "nn/weights/peft.h"

#include <optional>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "nn/weights/misplaced_file.h"
#include "nn/weights/own_weights.h"
#include "nn/weights/peft_config_file.h"
#include "nn/weights/safetensors.h"

namespace lathe::nn {
namespace {

using json = nlohmann::ordered_json;

constexpr std::string_view key_prefix = "base_model.model.";
constexpr const char *config_file = "adapter_config.json", *weights_file = "adapter_model.safetensors",
                     *base_file = "base_model.json";  // beside PEFT's files: an unknown field of its config it warns of

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

void read_base(const std::filesystem::path& directory, LoraConfig& config) {
  if (!std::filesystem::exists(directory / base_file)) return;
  const json base = read_json_file(directory / base_file);
  const auto text = [&](const char* key) {
    const auto found = base.is_object() ? base.find(key) : base.end();
    if (!base.is_object() || found == base.end() || !found->is_string())
      throw FormatError((directory / base_file).string(), -1, std::string(key) + ": expected a text");
    return found->get<std::string>();
  };
  config.base_fingerprint = text("fingerprint");
  config.base_quantization = text("quantization");
}

// Of a module, what a key of the file holds.
enum class Part { a, b, magnitude, embedding_a, embedding_b, base_layer, whole };

constexpr std::pair<std::string_view, Part> key_parts[] = {{".lora_A.weight", Part::a},
                                                           {".lora_B.weight", Part::b},
                                                           {".lora_magnitude_vector", Part::magnitude},
                                                           {".lora_magnitude_vector.weight", Part::magnitude},
                                                           {".lora_embedding_A", Part::embedding_a},
                                                           {".lora_embedding_B", Part::embedding_b},
                                                           {".base_layer.weight", Part::base_layer},
                                                           {".weight", Part::whole}};

// A state dict that was saved as it was in memory has the adapter's name in its keys: "….lora_A.default.weight",
// "lm_head.modules_to_save.default.weight".
std::string without_adapter_name(std::string key) {
  for (const std::string_view part : {".modules_to_save.default", ".default"}) {
    const size_t at = key.find(part);
    if (at == std::string::npos) continue;
    const size_t end = at + part.size();
    if (end == key.size() || key[end] == '.') return key.erase(at, part.size());
  }
  return key;
}

struct Key {
  std::string module;
  Part part;
  bool of_whole = false;  // the file has the name by which a multimodal model calls it
};

// Of an adapter of a multimodal model: "model.language_model.layers.0.…" is the text model's "model.layers.0.…".
std::string module_of_text(std::string module) {
  for (const std::string_view whole : text_model_prefixes)
    if (module.starts_with(whole)) return module.replace(0, whole.size(), own_weight_prefix);
  return module;
}

// "base_model.model.MODULE.lora_A.weight" → MODULE and that it is A.
std::optional<Key> parse_key(const std::string& full) {
  const std::string key = without_adapter_name(full);
  if (!key.starts_with(key_prefix)) return std::nullopt;
  for (const auto& [end, part] : key_parts) {
    if (!key.ends_with(end) || key.size() <= key_prefix.size() + end.size()) continue;
    const std::string name = key.substr(key_prefix.size(), key.size() - key_prefix.size() - end.size());
    Key found{module_of_text(name), part};
    found.of_whole = found.module != name;
    if (part == Part::whole && found.module != output_module && found.module != embedding_module) return std::nullopt;
    return found;
  }
  return std::nullopt;
}

// Where in the adapter a tensor of the file goes.
Tensor& place_of(PeftAdapter& adapter, const Key& key) {
  switch (key.part) {
    case Part::base_layer: return adapter.embedding_base;
    case Part::whole: return adapter.saved[key.module];
    case Part::magnitude: return adapter.modules[key.module].magnitude;
    case Part::a:
    case Part::embedding_a: return adapter.modules[key.module].a;
    default: return adapter.modules[key.module].b;
  }
}

void check_whole(const std::string& path, const PeftAdapter& adapter) {
  const auto missing = [&](const std::string& module, const std::string& part) {
    throw FormatError(path, -1, module + ": " + part + " is missing");
  };
  for (const auto& [module, weights] : adapter.modules) {
    const std::string kind = module == embedding_module ? "lora_embedding_" : "lora_";
    if (!weights.a.defined() || !weights.b.defined()) missing(module, kind + (weights.a.defined() ? "B" : "A"));
    if (weights.magnitude.defined() == adapter.config.use_dora) continue;
    if (adapter.config.use_dora) missing(module, "lora_magnitude_vector");
    throw FormatError(path, -1, module + ": has a lora_magnitude_vector, but the config says \"use_dora\": false");
  }
  for (const std::string& module : adapter.config.modules_to_save)
    if (!adapter.saved.contains(module)) missing(module, "the weight that the config's modules_to_save promise");
}

// Targets of a whole multimodal model by the text model's names. A regular expression is not to be rewritten: the
// modules that the file has stand in its place.
void rename_targets(PeftAdapter& adapter) {
  LoraConfig& config = adapter.config;
  for (std::string& module : config.target_modules) module = module_of_text(std::move(module));
  if (!config.target_modules_regex || *config.target_modules_regex == "all-linear") return;
  config.target_modules_regex.reset();
  for (const auto& [module, weights] : adapter.modules)
    if (is_text_module(module) && module.find(".experts") == std::string::npos) config.target_modules.push_back(module);
}

void read_weights(const std::filesystem::path& path, PeftAdapter& adapter) {
  const auto file = SafetensorsFile::open(path);
  bool of_whole = false;
  for (const std::string& name : file->names()) {
    const std::optional<Key> key = parse_key(name);
    if (!key)
      throw FormatError(path.string(), -1, "the key " + name + " is no LoRA weight (base_model.model.….lora_A.weight)");
    const Tensor tensor = file->tensor(name);
    const bool vector = key->part == Part::magnitude;
    if (tensor.rank() != (vector ? 1 : 2) || !is_floating(tensor.dtype()))
      throw FormatError(
          path.string(), tensor.byte_offset(),
          name + ": expected a " + (vector ? "vector" : "matrix") + " of floats, found " + describe(tensor));
    place_of(adapter, *key) = tensor;
    of_whole |= key->of_whole;
  }
  check_whole(path.string(), adapter);
  if (of_whole) rename_targets(adapter);
}

}  // namespace

std::string peft_key(std::string_view module, std::string_view part) {
  std::string key = std::string(key_prefix) + std::string(module) + "." + std::string(part);
  return part == "lora_A" || part == "lora_B" ? key + ".weight" : key;
}

PeftAdapter read_peft_adapter(const std::filesystem::path& directory, std::vector<std::string>* warnings) {
  if (!std::filesystem::is_directory(directory))
    throw ResourceError(directory.string() + ": is no directory; expected an adapter directory with " + config_file +
                        " and " + weights_file);
  PeftAdapter adapter;
  const auto config_path = directory / config_file, weights_path = directory / weights_file;
  adapter.config = lora_config_from_json(config_path.string(), read_config_json(config_path), warnings);
  read_base(directory, adapter.config);
  expect_file(weights_path);
  read_weights(weights_path, adapter);
  return adapter;
}

void write_peft_adapter(const std::filesystem::path& directory, const PeftAdapter& adapter) {
  NamedTensors tensors;
  for (const auto& [module, weights] : adapter.modules) {
    const bool embedding = module == embedding_module;
    tensors.emplace_back(peft_key(module, embedding ? "lora_embedding_A" : "lora_A"), weights.a);
    tensors.emplace_back(peft_key(module, embedding ? "lora_embedding_B" : "lora_B"), weights.b);
    if (weights.magnitude.defined()) tensors.emplace_back(peft_key(module, "lora_magnitude_vector"), weights.magnitude);
  }
  for (const auto& [module, weight] : adapter.saved) tensors.emplace_back(peft_key(module, "weight"), weight);
  write_safetensors(directory / weights_file, tensors);
  write_file_atomically(directory / config_file, lora_config_to_json(adapter.config).dump(2) + "\n");
  if (adapter.config.base_fingerprint.empty()) return;
  const json base = {{"fingerprint", adapter.config.base_fingerprint},
                     {"quantization", adapter.config.base_quantization}};
  write_file_atomically(directory / base_file, base.dump(2) + "\n");
}

}  // namespace lathe::nn
