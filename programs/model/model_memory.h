// The memory that a model takes, computed from its config.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/model_files.h"

namespace lathe::programs {

struct MemoryUse {
  std::string name;  // "lora": the key in JSON
  std::string what;  // for a person
  int64_t bytes = 0;
};

// Of the weights on the CPU, with codes where the file or the flags of the same name have them.
std::vector<MemoryUse> weight_memory(const nn::ModelFiles& files);
// Of keys and values for each token, and for the model's whole context, in bf16.
std::vector<MemoryUse> kv_cache_memory(const nn::ModelConfig& config);
// Of training by each method, in bf16 with gradient checkpointing, one sequence of `tokens` tokens at a time: the
// estimate of 'lathe-train --dry_run'. Without methods that these weights do not allow.
std::vector<MemoryUse> training_memory(const nn::ModelFiles& files, int64_t tokens);

}  // namespace lathe::programs
