// A model family maps a Hugging Face config.json, or GGUF metadata, to a ModelConfig. One small file for each family; the
// table in family.cpp lists them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>

#include "nn/config.h"

namespace lathe::nn {

struct Family {
  std::string_view name;               // our name, and config.json's model_type
  std::string_view gguf_architecture;  // general.architecture
  ModelConfig (*from_hf)(const nlohmann::json& config);
  ModelConfig (*from_gguf)(const GgufFile& file);
};

std::span<const Family> families();

// nn/families/llama.cpp: Llama 2 and 3.x, SmolLM2.
ModelConfig llama_from_hf(const nlohmann::json& config);
ModelConfig llama_from_gguf(const GgufFile& file);

}  // namespace lathe::nn
