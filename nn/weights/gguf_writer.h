// GGUF version 3, written: metadata, then tensors, each asked for row by row.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "nn/weights/ggml_quantize.h"
#include "nn/weights/gguf.h"
#include "nn/weights/weight_rows.h"

namespace lathe::nn {

// Integers are written as u32 and i32, numbers as f32, as llama.cpp's converter writes the keys that it knows.
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

struct GgufTensorToWrite {
  WeightRows weight;  // by GGUF's name, in GGUF's order of rows
  const GgmlWriter* type = nullptr;
};

// Written aside, synced and renamed; the same bytes for any number of threads. ConfigError for a row that its type's
// blocks do not divide or an integer that 32 bits do not hold, ResourceError for a full disk.
void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensorToWrite>& tensors);

}  // namespace lathe::nn
