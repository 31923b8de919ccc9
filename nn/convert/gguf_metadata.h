// What a GGUF file says of a model, as llama.cpp's converter writes it.
#pragma once

#include "nn/convert/gguf_model.h"

namespace lathe::nn {

// general.* and the architecture's keys, and the tensors of rotary factors. ConfigError, naming the key of config.json,
// for a setting that the format has no key for and whose readers would compute something else.
void add_gguf_metadata(const ModelConfig& config, const GgmlWriter& type, GgufModel& model);

}  // namespace lathe::nn
