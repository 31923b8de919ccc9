// Qwen2-MoE's mixture, which Qwen's later families have, too.
#pragma once

#include <cstdint>

#include "nn/config.h"
#include "nn/families/gguf_fields.h"

namespace lathe::nn {

// With an expert, `shared` wide, that all tokens go through by a gate of its own. ConfigError where it has no width.
ExpertsConfig experts_of_qwen2(ExpertCounts counts, int64_t intermediate_size, int64_t shared, bool norm_topk_prob);

}  // namespace lathe::nn
