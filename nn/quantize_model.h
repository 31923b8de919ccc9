// A model directory whose layers' linears are nf4 codes, as transformers and bitsandbytes load it.
#pragma once

#include <cstdint>
#include <filesystem>

#include "core/dtype.h"
#include "nn/model_files.h"
#include "nn/quantization.h"

namespace lathe::nn {

struct QuantizedModel {
  int64_t linears = 0;                         // quantised
  int64_t stored_bytes = 0, source_bytes = 0;  // of all weights, and what they took before
};

// The dtype in which most of a model's weights are stored: f32, bf16 or f16.
DType stored_dtype(const ModelFiles& files);

// Writes `directory`, whole or not at all: model.safetensors (nn/weights/bitsandbytes.h) with what is not quantised in
// `dtype`, config.json with its quantization_config, and the tokenizer's and the other files of `files`. As
// transformers does, weights are rounded to `dtype` before they become codes. A model that a reader dequantises is the
// same to the bit there and here.
// ConfigError for a GGUF file, a model that holds codes already, or a directory that is not empty. ResourceError for a
// full disk: nothing is left then.
QuantizedModel write_quantized_model(const std::filesystem::path& directory, const ModelFiles& files, DType dtype,
                                     kernels::Nf4Scales scales);

}  // namespace lathe::nn
