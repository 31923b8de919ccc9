// What the families' config.json files have in common, by transformers' names.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "nn/config.h"

namespace lathe::nn {

// Typed fields; a missing or mistyped one is a ConfigError that names its key.
template <class T>
T required_field(const nlohmann::json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) throw ConfigError(key, "missing from config.json");
  try {
    if constexpr (std::is_same_v<T, int64_t>) {
      if (!found->is_number_integer()) throw ConfigError(key, "expected an integer, found " + found->dump());
    }
    return found->template get<T>();
  } catch (const nlohmann::json::exception&) {
    throw ConfigError(key, "has the wrong type in config.json: " + found->dump());
  }
}

template <class T>
T optional_field(const nlohmann::json& config, const char* key, T otherwise) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return otherwise;
  return required_field<T>(config, key);
}

// The fields of Llama, which others extend: layers that are all alike, one rotary table. Without num_key_value_heads
// there are as many as heads; without head_dim the heads share the width out.
ModelConfig read_hf_fields(const nlohmann::json& config);

}  // namespace lathe::nn
