// adapter_config.json as values, both ways.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "nn/weights/peft.h"

namespace lathe::nn {

// `path` is named in errors. Unknown fields go into `warnings`, where there are any.
LoraConfig lora_config_from_json(const std::string& path, const nlohmann::ordered_json& given,
                                 std::vector<std::string>* warnings);
nlohmann::ordered_json lora_config_to_json(const LoraConfig& config);

}  // namespace lathe::nn
