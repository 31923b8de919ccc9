// The licence that a model's files name.
#pragma once

#include <string>

#include "nn/model_files.h"

namespace lathe::programs {

// GGUF's general.license, or "license" in the front matter of a directory's README.md (license_name where that says
// "other"); else "see LICENSE" for a directory with such a file, or "".
std::string license_of(const nn::ModelFiles& files);

}  // namespace lathe::programs
