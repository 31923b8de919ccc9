// Sliding windows as Qwen's config.json says them.
#pragma once

#include "nn/families/hf_fields.h"

namespace lathe::nn {

// Gives the layers their windows: those that layer_types calls sliding_attention, or, where it is not there, those from
// max_window_layers on; none without use_sliding_window and a sliding_window. ConfigError for a word that is neither
// full_attention nor sliding_attention.
void set_sliding_windows(ModelConfig& model, const HfFields& config);

}  // namespace lathe::nn
