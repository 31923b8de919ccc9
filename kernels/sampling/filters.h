// The filters of one row. Internal to this folder.
#pragma once

#include "kernels/sampling/sampling.h"

namespace lathe::kernels {

bool has_filters(const SamplingParams& params);
// What top-k, top-p and min-p keep, by id, with weights exp((logit − largest) / temperature).
std::vector<Kept> filter(std::span<const float> logits, float largest, const SamplingParams& params);

}  // namespace lathe::kernels
