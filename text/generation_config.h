// generation_config.json of a Hugging Face directory: where the model's answers end, and how its authors sample.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/json_value.h"

namespace lathe::text {

struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;
  // {"temperature": 0.6, …}: what the file proposes. Nothing here applies it: a user's flags say how to sample.
  nlohmann::ordered_json sampling = nlohmann::ordered_json::object();
};

// Empty where the directory has no such file (or is none). FormatError names the key that is wrong.
GenerationConfig read_generation_config(const std::filesystem::path& directory);

}  // namespace lathe::text
