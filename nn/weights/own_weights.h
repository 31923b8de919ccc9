// Directories and files that hold more than the text model: one that sees pictures, or that guesses several tokens at
// once.
#pragma once

#include <memory>

#include "nn/config.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

// The weights of the config's model alone, called "model.…" where the source calls them `config.weight_prefix`…. The
// source itself where nothing of it would change.
std::unique_ptr<WeightSource> own_weights(std::unique_ptr<WeightSource> source, const ModelConfig& config);

}  // namespace lathe::nn
