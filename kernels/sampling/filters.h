// The filters of one row on the CPU. Internal to this folder.
#pragma once

#include "kernels/sampling/sampling.h"

namespace lathe::kernels {

bool has_filters(const SamplingParams& params);
// What top-k, top-p and min-p keep, by id.
std::vector<Kept> filter(std::span<const float> logits, float largest, const SamplingParams& params);

// In integers, as every body takes them: top_p of a total weight, and the least weight that min_p keeps.
uint64_t weight_needed(float top_p, uint64_t total);
uint64_t least_weight(float min_p);

}  // namespace lathe::kernels
