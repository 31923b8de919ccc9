// A model's weights as safetensors, in one file or in shards, each weight asked for row by row.
#pragma once

#include <filesystem>
#include <vector>

#include "core/dtype.h"
#include "nn/weights/weight_rows.h"

namespace lathe::nn {

struct SafetensorsToWrite {
  WeightRows weight;
  DType dtype = DType::f32;  // f32, bf16 or f16: each element rounded once
};

// In `directory`, which exists: model.safetensors, or model-0000I-of-0000N.safetensors of at most `max_shard_bytes`
// each (a weight is never divided) with model.safetensors.index.json. The order within a file is write_safetensors'.
void write_safetensors_shards(const std::filesystem::path& directory, const std::vector<SafetensorsToWrite>& weights,
                              int64_t max_shard_bytes);

}  // namespace lathe::nn
