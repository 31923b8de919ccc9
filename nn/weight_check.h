// A model's config against its weights, before one of them is read.
#pragma once

#include <string>
#include <vector>

#include "nn/model_files.h"

namespace lathe::nn {

// Sentences: weights that the config asks for and that are missing, have another shape, or that it has no place for.
// All at once, where loading would stop at the first. Empty where they belong together.
std::vector<std::string> weight_contradictions(const ModelFiles& files);

}  // namespace lathe::nn
