// What a run leaves in output_dir beside checkpoints and metrics.
#pragma once

#include <filesystem>

#include "nn/transformer.h"
#include "train/optimizer.h"

namespace lathe::train {

// The adapter (PEFT's format), or the whole model: model.safetensors in the model's dtype with the configuration, which
// says that dtype, and the tokenizer files of `model_directory`, so that output_dir is a MODEL itself. Each file
// appears whole or not at all.
void write_result(const std::filesystem::path& output_dir, const nn::Transformer& model, const Optimizer& optimizer,
                  const std::filesystem::path& model_directory);

}  // namespace lathe::train
