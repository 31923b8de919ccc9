// Files under tests/golden/: what independent implementations answer to fixed inputs (tests/golden/README.md).
#pragma once

#include <map>
#include <string>

#include "core/tensor.h"

namespace lathe::testing {

// The folder's path with `name` appended: golden_path("kernels/adamw.safetensors").
std::string golden_path(const std::string& name);

using GoldenTensors = std::map<std::string, Tensor, std::less<>>;
// Every tensor of a golden safetensors file (F64, F32, BF16, F16, I64, I32, U8), in its own dtype. Throws FormatError.
GoldenTensors golden_tensors(const std::string& name);

}  // namespace lathe::testing
