// Which layers of a config.json have sliding windows.
#pragma once

#include <optional>

#include "nn/families/hf_fields.h"

namespace lathe::nn {

// Whether layer_types calls the layer sliding_attention; nothing where that key is not there. ConfigError where it has
// no word for the layer, or one that is neither full_attention nor sliding_attention.
std::optional<bool> slides_by_type(const HfFields& config, size_t layer);

// Qwen's way: those layers slide that layer_types says, or, where it is not there, those from max_window_layers on;
// none without use_sliding_window and a sliding_window.
void set_sliding_windows(ModelConfig& model, const HfFields& config);

}  // namespace lathe::nn
