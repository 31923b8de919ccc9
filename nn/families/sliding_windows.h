// Which layers of a config.json, or of a GGUF file, have sliding windows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "nn/families/hf_fields.h"
#include "nn/weights/gguf.h"

namespace lathe::nn {

// Whether layer_types calls the layer sliding_attention; nothing where that key is not there. ConfigError where it has
// no word for the layer, or one that is neither full_attention nor sliding_attention.
std::optional<bool> slides_by_type(const HfFields& config, size_t layer);

// Qwen's way: those layers slide that layer_types says, or, where it is not there, those from max_window_layers on;
// none without use_sliding_window and a sliding_window.
void set_sliding_windows(ModelConfig& model, const HfFields& config);

// GGUF's way, of each layer: as ARCHITECTURE.attention.sliding_window_pattern lists them, or all but every n-th, where
// n is what that key says, or `usual` without it. ConfigError with the key for another number of layers, FormatError
// for what is no pattern.
std::vector<bool> slides_by_gguf(const GgufFile& file, const std::string& architecture, size_t layers, int64_t usual);

}  // namespace lathe::nn
