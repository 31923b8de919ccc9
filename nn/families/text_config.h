// Models that see or hear hold a text model, with a config of its own in theirs.
#pragma once

#include "nn/families/hf_fields.h"

namespace lathe::nn {

// Whether this is the config.json of such a model whose text model is read.
bool is_multimodal(const nlohmann::ordered_json& config);

// What the text model's own config.json would say: `config` itself where that is it; else its text_config (older
// Qwen2-VLs have these fields among the whole's), with what the whole alone says, under the text model's model_type.
nlohmann::ordered_json text_config(const nlohmann::ordered_json& config);

}  // namespace lathe::nn
