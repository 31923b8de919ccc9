// Models that see or hear hold a text model, with a config of its own in theirs.
#pragma once

#include "nn/families/hf_fields.h"

namespace lathe::nn {

// Whether this is the config.json of such a model whose text model is read.
bool is_multimodal(const nlohmann::ordered_json& config);

// What the text model's own config.json would say: `config` itself where that is it; else its text_config (older
// Qwen2-VLs have these fields among the whole's), with what the whole alone says and the extents that transformers
// takes where it is silent, under the text model's model_type.
nlohmann::ordered_json text_config(const nlohmann::ordered_json& config);

// What a config.json says of how the weights are quantised: the whole's quantization_config, before which
// compressed-tensors wrote compression_config, or its text_config's. nullptr where it says nothing, or null.
const nlohmann::ordered_json* quantization_config(const nlohmann::ordered_json& config);

}  // namespace lathe::nn
