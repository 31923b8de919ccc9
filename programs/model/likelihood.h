// How likely a model finds given tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "programs/cli/session.h"

namespace lathe::programs {

// For each sequence, log p of every token after the first given those before it, in nats: [length − 1]. All sequences
// go through the model in one batch; what a sequence gets does not depend on the others.
std::vector<std::vector<double>> token_loglikelihoods(const cli::Session& session,
                                                      const std::vector<std::vector<int32_t>>& sequences);

}  // namespace lathe::programs
