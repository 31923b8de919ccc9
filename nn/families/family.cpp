#include "nn/families/family.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "nn/weights/gguf.h"

namespace lathe::nn {
namespace {

constexpr Family all_families[] = {
    {"llama", "llama", llama_from_hf, llama_from_gguf},
};

std::string known_names() {
  std::string names;
  for (const Family& family : all_families) names += (names.empty() ? "" : ", ") + std::string(family.name);
  return names;
}

}  // namespace

std::span<const Family> families() { return all_families; }

ModelConfig read_hf_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  std::ifstream stream(path);
  if (!stream) throw ResourceError(path.string() + ": cannot be opened; a model directory holds config.json");
  nlohmann::json config;
  try {
    config = nlohmann::json::parse(stream);
  } catch (const nlohmann::json::parse_error& error) {
    throw FormatError(path.string(), static_cast<int64_t>(error.byte), std::string("is no JSON: ") + error.what());
  }
  if (!config.is_object()) throw FormatError(path.string(), 0, "expected a JSON object");
  const auto type = config.find("model_type");
  const std::string name = type != config.end() && type->is_string() ? type->get<std::string>() : "";
  for (const Family& family : all_families) {
    if (family.name != name) continue;
    ModelConfig result = family.from_hf(config);
    result.check();
    return result;
  }
  throw ConfigError("model_type", "expected one of " + known_names() + ", found \"" + name + "\" in " + path.string());
}

ModelConfig config_from_gguf(const GgufFile& file) {
  const std::string& architecture = file.get<std::string>("general.architecture");
  for (const Family& family : all_families) {
    if (family.gguf_architecture != architecture) continue;
    ModelConfig result = family.from_gguf(file);
    result.check();
    return result;
  }
  throw ConfigError("general.architecture",
                    "expected one of " + known_names() + ", found \"" + architecture + "\" in " + file.path().string());
}

}  // namespace lathe::nn
